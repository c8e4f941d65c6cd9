/**
 * Targets of pruning: which matrices a phase is about, in the words of SparseML's recipes.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { nameMatcher } from "../core/name_pattern.ts";
import { isPrunable } from "./sparsity.ts";

/** The target that means every prunable matrix. */
export const allPrunable = "__ALL_PRUNABLE__";

/**
 * The weights that targets mean, each once, in the model's order. A target is `__ALL_PRUNABLE__`, or names and modules as
 * `nameMatcher` reads them: those of SparseML, and modules further up.
 *
 * `names` are those of all parameters of the model. An expression takes the prunable ones of what it matches, for most
 * match a bias or a LayerNorm too. Throws InputError for a target that matches nothing, or nothing that is prunable.
 */
export function matchTargets(targets: readonly string[], names: readonly string[]): string[] {
  if (targets.length === 0) throw new InputError(`Pruning has no targets: wanted ${allPrunable}, or names`);
  const prunable = names.filter(isPrunable);
  const matched = new Set(targets.flatMap((target) => {
    const matches = matcher(target);
    const found = prunable.filter(matches);
    if (found.length > 0) return found;
    const other = names.find(matches);
    throw new InputError(
      `Pruning target ${target} matches ` + (other ? `${other}, which is not prunable` : "no weight") +
        `: wanted ${examples(prunable)}`,
    );
  }));
  return prunable.filter((name) => matched.has(name));
}

/** Whether a target means the parameter of a name. */
function matcher(target: string): (name: string) => boolean {
  return target === allPrunable ? isPrunable : nameMatcher(target, "Pruning target");
}

function examples(prunable: readonly string[]): string {
  if (prunable.length === 0) return "a model with encoder layers, which are what is pruned";
  const few = prunable.slice(0, 3).join(", ");
  return prunable.length > 3 ? `one of ${few}, … (${prunable.length} in all)` : `one of ${few}`;
}

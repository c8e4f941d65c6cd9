/**
 * Targets of pruning: which matrices a phase is about, in the words of SparseML's recipes.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { isPrunable } from "./sparsity.ts";

/** The target that means every prunable matrix. */
export const allPrunable = "__ALL_PRUNABLE__";

/**
 * The weights that targets mean, each once, in the model's order. A target is `__ALL_PRUNABLE__`, the name of a weight
 * (`….query.weight`) or of its module (`….query`), or `re:` and an expression that either of them begins with: Python's
 * `re.match`, as in SparseML.
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
  if (target === allPrunable) return isPrunable;
  if (!target.startsWith("re:")) return (name) => name === target || moduleOf(name) === target;
  const expression = beginningWith(target);
  return (name) => expression.test(name) || expression.test(moduleOf(name));
}

function beginningWith(target: string): RegExp {
  try {
    return new RegExp(`^(?:${target.slice("re:".length)})`);
  } catch (error) {
    throw new InputError(`Pruning target ${target} is no regular expression: ${(error as Error).message}`);
  }
}

function moduleOf(name: string): string {
  return name.slice(0, Math.max(0, name.lastIndexOf(".")));
}

function examples(prunable: readonly string[]): string {
  if (prunable.length === 0) return "a model with encoder layers, which are what is pruned";
  const few = prunable.slice(0, 3).join(", ");
  return prunable.length > 3 ? `one of ${few}, … (${prunable.length} in all)` : `one of ${few}`;
}

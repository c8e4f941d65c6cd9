/**
 * A pruning phase: what is pruned, how, and when. A run may have several.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { PruningScope } from "./method.ts";
import { checkObert, type ObertOptions } from "./obert/options.ts";
import type { PruningMethodName } from "./options.ts";
import { checkFinalSparsity, checkPattern, type Pattern } from "./pattern.ts";
import type { PruningSchedule } from "./schedule.ts";
import type { LayerSparsity } from "./sparsity.ts";
import { matchTargets } from "./targets.ts";

/** How a phase chooses what to prune. */
export type PruningMethodSettings =
  /** The smallest weights. */
  | { readonly name: "magnitude" }
  /** None but the weights that are zero already: sparse transfer. */
  | { readonly name: "constant" }
  /** The weights that training moves towards zero; `scoreLearningRate` is that of the scores. */
  | { readonly name: "movement"; readonly scoreLearningRate: number }
  /**
   * The same by a threshold on the scores' sigmoid, with a penalty on its mean. Both rise as the schedule's sparsity does, to
   * these values; what sparsity that comes to is an outcome.
   */
  | {
    readonly name: "soft-movement";
    readonly scoreLearningRate: number;
    readonly penalty: number;
    readonly threshold: number;
  }
  /** The weights whose removal raises the loss least, by an empirical Fisher matrix. */
  | ({ readonly name: "obert" } & ObertOptions);

/** Whether a method trains scores. */
export function isMovement<Method extends { readonly name: PruningMethodName }>(
  method: Method,
): method is Extract<Method, { readonly name: "movement" | "soft-movement" }> {
  return method.name === "movement" || method.name === "soft-movement";
}

/** What is pruned, how, and when. */
export interface PruningPhase {
  readonly method: PruningMethodSettings;
  readonly pattern: Pattern;
  readonly scope: PruningScope;
  /** Names, `re:` expressions or `__ALL_PRUNABLE__`: see `matchTargets`. */
  readonly targets: readonly string[];
  readonly schedule: PruningSchedule;
}

/** A parameter with its shape. */
export interface NamedShape {
  readonly name: string;
  readonly shape: readonly number[];
}

/**
 * Checks phases against all parameters of a model, to be called before anything is trained. Throws InputError for targets
 * that match nothing prunable, a pattern that does not divide a matrix, N:M that ends elsewhere than at 1 − N/M, numbers of
 * oBERT that cannot be, `constant` with any schedule but its own, and two phases about one matrix at the same steps.
 */
export function checkPhases(phases: readonly PruningPhase[], parameters: readonly NamedShape[]): void {
  const names = parameters.map(({ name }) => name);
  const targets = phases.map((phase) => new Set(matchTargets(phase.targets, names)));
  phases.forEach(({ method, pattern, schedule }, index) => {
    if ((method.name === "constant") !== (schedule.name === "constant")) {
      throw new InputError(
        `Pruning method ${method.name} has the schedule ${schedule.name}: wanted constant with constant alone`,
      );
    }
    if (method.name === "constant") return;
    if (method.name === "obert") checkObert(method);
    const matrices = parameters.filter(({ name }) => targets[index].has(name));
    checkPattern(
      pattern,
      matrices.map(({ name, shape: [rows, columns] }) => ({ name, rows, columns })),
    );
    checkFinalSparsity(pattern, schedule.sparsity(schedule.end));
  });
  phases.forEach(({ schedule }, index) => {
    for (let earlier = 0; earlier < index; earlier++) {
      const other = phases[earlier].schedule;
      if (other.begin > schedule.end || schedule.begin > other.end) continue;
      const shared = targets[index].intersection(targets[earlier]).values().next().value;
      if (shared === undefined) continue;
      throw new InputError(
        `Two pruning phases are about ${shared}, in steps ${other.begin} to ${other.end} and ` +
          `${schedule.begin} to ${schedule.end}: wanted one at a time`,
      );
    }
  });
}

/** The pattern of all that phases prune: `unstructured` where they differ, or only hold the zeros that there are. */
export function patternOfPhases(phases: readonly PruningPhase[]): Pattern {
  const [first = "unstructured", ...others] = new Set(
    phases.map(({ method, pattern }) => method.name === "constant" ? "unstructured" : pattern),
  );
  return others.length === 0 ? first : "unstructured";
}

/**
 * Checks phases against the weights that a run starts with. Throws InputError for `constant` before any other phase where
 * none of its targets has a zero.
 */
export function checkZeros(phases: readonly PruningPhase[], prunable: readonly LayerSparsity[]): void {
  const names = prunable.map(({ name }) => name);
  const [first] = phases;
  if (first?.method.name !== "constant") return;
  const targets = new Set(matchTargets(first.targets, names));
  const layers = prunable.filter(({ name }) => targets.has(name));
  if (layers.some(({ zeros }) => zeros > 0)) return;
  throw noZeros(layers.reduce((sum, { weights }) => sum + weights, 0));
}

/** `constant` has nothing to hold. */
export function noZeros(weights: number): InputError {
  return new InputError(
    `Pruning method constant finds no zero among the ${weights} weights of its targets: wanted a pruned model`,
  );
}

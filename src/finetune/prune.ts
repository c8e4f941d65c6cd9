/**
 * Renewing masks that follow from the weights alone: by their magnitudes, or the zeros that are there. `pruner.ts` says when.
 * @module
 */
import { bitsetWords } from "../pruning/bitset.ts";
import { pruneZeros } from "../pruning/constant.ts";
import type { PrunableMatrix } from "../pruning/method.ts";
import type { Pattern } from "../pruning/pattern.ts";
import { noZeros, type PruningPhase } from "../pruning/phase.ts";
import { isPrunable, sparsityOfMasks } from "../pruning/sparsity.ts";
import { matchTargets } from "../pruning/targets.ts";
import { sparsePatternOf } from "./compact.ts";
import { matrixPlace } from "./memory.ts";
import { type PlacedMatrix, task as pruneMatrix } from "./prune_task.ts";
import type { MagnitudeRefresh } from "./step_engine.ts";
import type { Trainer } from "./trainer.ts";

/**
 * The pattern of a trainer that goes through phases: that of all masks in common. The zeros that `constant` finds lie as they
 * come.
 */
export function trainingPatternOf(phases: readonly PruningPhase[]): Pattern {
  return sparsePatternOf(
    ...phases.map(({ method, pattern }) => method.name === "constant" ? "unstructured" : pattern),
  );
}

/**
 * Renews the masks of a phase's targets to what its schedule has at a step, and gives the sparsity that all prunable weights
 * together have then. For `magnitude` and `constant`, whose masks follow from the weights alone. Throws InputError where
 * `constant` finds no zeros in any target.
 */
export async function refreshMasks(
  trainer: Trainer<never>,
  phase: PruningPhase,
  step: number,
): Promise<number> {
  const { pattern, scope, targets, schedule, method: { name: method } } = phase;
  const sparsity = schedule.sparsity(step);
  if (method !== "magnitude" && method !== "constant") {
    throw new Error(`Cannot prune by ${method} without scores gathered in training`);
  }
  const names = new Set(matchTargets(targets, trainer.layout.slots.map(({ name }) => name)));
  const refresh = { names, pattern, scope, sparsity };
  if (method === "constant") await holdZeros(trainer, names);
  else if (!await trainer.pruneByMagnitude(refresh)) {
    await (scope === "layer" ? pruneEach(trainer, refresh) : pruneTogether(trainer, refresh));
  }
  return trainer.sparsity;
}

/** Each matrix on a worker. */
async function pruneEach(
  trainer: Trainer<never>,
  { names, pattern, sparsity }: MagnitudeRefresh,
): Promise<void> {
  await trainer.reprune(
    pruneMatrix,
    (name, place) => ({ matrices: [{ ...place, name }], pattern, sparsity }),
    names,
  );
}

/** All matrices are ranked together, which one worker does. */
async function pruneTogether(
  trainer: Trainer<never>,
  { names, pattern, sparsity }: MagnitudeRefresh,
): Promise<void> {
  const slots = trainer.layout.slots.filter(({ name }) => names.has(name));
  await trainer.perform(pruneMatrix, (memory) => [{
    matrices: slots.map((slot): PlacedMatrix => ({ name: slot.name, ...matrixPlace(slot, memory) })),
    pattern,
    sparsity,
  }]);
  trainer.applyMask();
}

/** What is zero stays so. */
async function holdZeros(trainer: Trainer<never>, names: ReadonlySet<string>): Promise<void> {
  await trainer.settle();
  const matrices = matricesOf(trainer).filter(({ name }) => names.has(name));
  for (const { values, mask } of matrices) pruneZeros(values, mask);
  const { weights, zeros } = sparsityOfMasks(matrices);
  if (zeros === 0) throw noZeros(weights);
  trainer.applyMask();
}

/** The prunable matrices with their masks: live views. */
export function matricesOf(trainer: Trainer<never>): (PrunableMatrix & { readonly mask: Uint32Array })[] {
  const { mask } = trainer;
  return trainer.layout.slots.filter(({ name }) => isPrunable(name)).map((slot) => ({
    name: slot.name,
    rows: slot.shape[0],
    columns: slot.shape[1],
    values: trainer.parameter(slot),
    mask: mask.subarray(slot.offset / 32, slot.offset / 32 + bitsetWords(slot.length)),
  }));
}

/**
 * Pruning during training: when the mask is renewed, and how.
 * @module
 */
import { magnitude } from "../pruning/magnitude.ts";
import { type PrunableMatrix, pruneMasks } from "../pruning/method.ts";
import { cubicSchedule, type PruningSchedule } from "../pruning/schedule.ts";
import type { Pattern } from "../pruning/pattern.ts";
import { bitsetWords } from "../pruning/bitset.ts";
import { task as pruneMatrix } from "./prune_task.ts";
import { isPrunable, sparsityOfMasks } from "../pruning/sparsity.ts";
import type { FinetuneSettings } from "./options.ts";
import type { Trainer } from "./trainer.ts";

/** The cubic schedule laid over a run's optimiser steps; undefined when nothing is to be pruned. */
export function pruningScheduleOf(
  settings: FinetuneSettings,
  totalSteps: number,
): PruningSchedule | undefined {
  if (settings.sparsity === 0) return undefined;
  const begin = Math.min(totalSteps - 1, Math.round(settings.pruneBegin * totalSteps));
  const end = Math.min(totalSteps - 1, Math.round(settings.pruneEnd * totalSteps));
  return cubicSchedule({
    initialSparsity: 0,
    finalSparsity: settings.sparsity,
    begin,
    end,
    every: Math.max(1, Math.ceil((end - begin) / settings.pruneRefreshes)),
  });
}

/** Renews the trainer's mask at a sparsity and gives the sparsity of the prunable weights reached. */
export async function refreshMasks(
  trainer: Trainer<never>,
  { pattern, scope }: FinetuneSettings,
  sparsity: number,
): Promise<number> {
  if (scope === "layer") {
    await trainer.reprune(pruneMatrix, (name, place) => ({ ...place, name, pattern, sparsity }));
  } else {
    await trainer.settle();
    pruneTogether(trainer, pattern, sparsity);
  }
  return sparsityOfMasks(matricesOf(trainer)).overall;
}

/** All matrices are ranked together, which one thread does. */
function pruneTogether(trainer: Trainer<never>, pattern: Pattern, sparsity: number): void {
  const matrices = matricesOf(trainer);
  const masks = pruneMasks(matrices, {
    method: magnitude,
    pattern,
    scope: "global",
    sparsity,
    previous: new Map(matrices.map(({ name, mask }) => [name, mask])),
  });
  for (const { name, mask } of matrices) mask.set(masks.get(name)!);
  trainer.applyMask();
}

/** The prunable matrices with their masks: live views. */
function matricesOf(trainer: Trainer<never>): (PrunableMatrix & { readonly mask: Uint32Array })[] {
  const { mask } = trainer;
  return trainer.layout.slots.filter(({ name }) => isPrunable(name)).map((slot) => ({
    name: slot.name,
    rows: slot.shape[0],
    columns: slot.shape[1],
    values: trainer.parameter(slot),
    mask: mask.subarray(slot.offset / 32, slot.offset / 32 + bitsetWords(slot.length)),
  }));
}

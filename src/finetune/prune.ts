/**
 * Pruning during training: when the mask is renewed, and how.
 * @module
 */
import { magnitude } from "../pruning/magnitude.ts";
import { type PrunableMatrix, pruneMasks } from "../pruning/method.ts";
import { cubicSchedule, type PruningSchedule } from "../pruning/schedule.ts";
import { isPrunable, sparsityOfWeights } from "../pruning/sparsity.ts";
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
export function refreshMasks(trainer: Trainer, settings: FinetuneSettings, sparsity: number): number {
  const { mask } = trainer;
  const slots = trainer.layout.slots.filter(({ name }) => isPrunable(name));
  const wordsOf = (slot: typeof slots[number]) =>
    mask.subarray(slot.offset / 32, slot.offset / 32 + Math.ceil(slot.length / 32));
  const matrices = slots.map((slot): PrunableMatrix => ({
    name: slot.name,
    rows: slot.shape[0],
    columns: slot.shape[1],
    values: trainer.parameter(slot),
  }));
  const masks = pruneMasks(matrices, {
    method: magnitude,
    pattern: settings.pattern,
    scope: settings.scope,
    sparsity,
    previous: new Map(slots.map((slot) => [slot.name, wordsOf(slot)])),
  });
  for (const slot of slots) wordsOf(slot).set(masks.get(slot.name)!);
  trainer.applyMask();
  return sparsityOfWeights(matrices).overall;
}

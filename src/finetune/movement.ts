/**
 * Movement pruning in training: when scores begin and end, and how masks follow them.
 *
 * `Pruner` calls `Trainer.beginMovement` at a phase's first step, `movementRefresh` at each refresh, `trainer.movement.tell`
 * before each step, and `Trainer.endMovement` after the last refresh.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { Pattern } from "../pruning/pattern.ts";
import { sparsityOfMasks } from "../pruning/sparsity.ts";
import { type MovementTarget, type MovingMatrix, task as moveWeights } from "./movement_task.ts";
import { matricesOf } from "./prune.ts";
import type { Trainer } from "./trainer.ts";

/**
 * Renews the masks of the matrices whose scores are trained, and gives the sparsity that all prunable weights together have
 * then. What is pruned keeps its value and returns with it when its score rises. Throws `InputError` when something is to
 * be pruned before any score was trained.
 */
export async function movementRefresh(
  trainer: Trainer<never>,
  pattern: Pattern,
  target: MovementTarget,
): Promise<number> {
  const { movement } = trainer;
  if (!movement?.activity) throw new Error("Cannot prune by movement: scores are not trained");
  const { names, steps } = movement.activity;
  const wanted = "sparsity" in target ? target.sparsity : target.threshold;
  if (steps === 0 && wanted > 0) {
    throw new InputError(
      `Cannot prune to ${wanted} by movement at its first step: no score is trained yet, wanted an initial value of 0`,
    );
  }
  const slots = names.map((name) => trainer.layout.slot(name));
  await trainer.perform(moveWeights, ({ weights, states, mask }) => {
    const matrices = slots.map(({ name, shape: [rows, depth], offset }): MovingMatrix => ({
      ...{ name, rows, depth },
      states: [weights, ...states].map((address) => address + 4 * offset),
      mask: mask + offset / 8,
      ...movement.place(name),
    }));
    const isGlobal = "scope" in target && target.scope === "global";
    const groups = isGlobal ? [matrices] : matrices.map((matrix) => [matrix]);
    return groups.map((group) => ({ matrices: group, pattern, target }));
  });
  trainer.applyMask();
  return sparsityOfMasks(matricesOf(trainer)).overall;
}

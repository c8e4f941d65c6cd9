/**
 * The gradient of movement pruning's scores as steps of a plan. Not a graph operation: it reads weights and gradients
 * where they lie.
 * @module
 */
import { splitRange, type Step } from "../../graph/operation.ts";
import { callKernel, type KernelCall } from "../kernel.ts";
import { movementKernel, penalizedMovementKernel } from "./kernel.ts";

/** Elements a worker's share is a multiple of: whole cache lines. */
const grain = 64;

/** The arrays of one matrix. Addresses are bytes from the arena's start. */
export interface MovementRange {
  readonly gradients: number;
  readonly weights: number;
  readonly dormant: number;
  readonly scores: number;
  /** Receives the scores' gradient. */
  readonly target: number;
  /** Elements. */
  readonly count: number;
}

/** What to compute. */
export interface MovementRequest {
  readonly ranges: readonly MovementRange[];
  /** Address of the f32 λ of the penalty λ · mean over matrices of mean σ(S); absent: there is no penalty. */
  readonly penalty?: number;
  /** Workers that share the step. */
  readonly workers: number;
}

/** One step that writes the gradients of all scores: see `movementReference`. */
export function movementSteps({ ranges, penalty, workers }: MovementRequest): Step[] {
  const calls = Array.from({ length: workers }, (): KernelCall[] => []);
  for (const { count, ...addresses } of ranges) {
    splitRange(count, workers, grain).forEach(({ begin, end }, worker) => {
      if (begin === end) return;
      const at = (address: number) => address + 4 * begin;
      const operands = {
        gradients: at(addresses.gradients),
        weights: at(addresses.weights),
        dormant: at(addresses.dormant),
        target: at(addresses.target),
        count: end - begin,
      };
      calls[worker].push(
        penalty === undefined ? callKernel(movementKernel, operands) : callKernel(penalizedMovementKernel, {
          ...operands,
          scores: at(addresses.scores),
          penalty,
          share: 1 / (ranges.length * count),
        }),
      );
    });
  }
  return [{ name: "movement", calls }];
}

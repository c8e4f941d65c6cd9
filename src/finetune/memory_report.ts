/**
 * What a run takes of memory, for the reader.
 * @module
 */
import { formatBytes } from "../core/memory.ts";
import type { TrainerNeeds } from "./trainer_needs.ts";

/** What a run takes. */
export interface RunMemory {
  readonly trainer: Pick<TrainerNeeds, "arenaBytes" | "parameterBytes" | "activationBytes">;
  /** Whether a GPU takes the steps; default: no. */
  readonly onGpu?: boolean;
  /** Of MetaAdamW, besides the trainer's; default 0. */
  readonly metaBytes?: number;
  /** Most that renewing masks takes, besides the trainer's. */
  readonly refreshBytes: number;
}

/** One line: what is there all the time, and what comes and goes. */
export function describeMemory({ trainer, onGpu = false, metaBytes = 0, refreshBytes }: RunMemory): string {
  const { arenaBytes, parameterBytes, activationBytes } = trainer;
  const where = onGpu
    ? `${formatBytes(parameterBytes + activationBytes)} on the GPU`
    : formatBytes(arenaBytes);
  const parts = [
    `memory: ${where}: ${formatBytes(parameterBytes)} for weights, gradients and optimiser, ` +
    `${formatBytes(activationBytes)} for activations`,
  ];
  if (onGpu) parts.push(`${formatBytes(arenaBytes)} beside it for a copy of the former`);
  if (metaBytes > 0) parts.push(`${formatBytes(metaBytes)} more for meta-updates`);
  if (refreshBytes > 0) {
    parts.push(`up to ${formatBytes(refreshBytes)} more for Fisher matrices while masks are renewed`);
  }
  return parts.join("; ");
}

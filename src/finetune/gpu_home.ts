/**
 * What a trainer keeps on a GPU whatever the batch: the arrays of the parameters, and the few numbers that steps are told and tell.
 * @module
 */
import type { GpuExecutor } from "../webgpu/executor.ts";
import { gpuArrays } from "./gpu_arrays.ts";
import { type GpuPlaces, partialBytes } from "./gpu_step_plan.ts";
import { toldBytes } from "./gpu_told.ts";
import type { TrainerOptions, TrainerShape } from "./trainer_needs.ts";

/** Steps whose results wait on the device at most. */
export const ringSteps = 16;

/** In the ring a step has two ranges: the loss, and the norm of the gradients. */
export const ringLayout = { loss: 0, norm: 256, stepBytes: 512 } as const;

/** Where a GPU trains, and what it keeps there. */
export interface GpuHome {
  readonly gpu: GpuExecutor;
  readonly places: GpuPlaces;
  readonly ring: number;
  /** Bytes of what outlives a step. */
  readonly parameterBytes: number;
}

/** Makes the buffers that are as large whatever the batch. */
export async function furnish<Example>(
  options: TrainerOptions<Example>,
  shape: TrainerShape,
  gpu: GpuExecutor,
): Promise<GpuHome> {
  const { layout, rule, groups } = shape;
  const { target } = gpu;
  const wanted = gpuArrays(layout, rule, target, options.accumulates ?? false);
  const arrays = wanted.name(await gpu.createBuffers(wanted.byteLengths));
  const request = { layout, rule, groups, target };
  const small = [
    toldBytes(options, shape),
    4,
    4,
    8,
    partialBytes(request, arrays),
    ringSteps * ringLayout.stepBytes,
  ];
  const [told, loss, lossSum, norm, partials, ring] = await gpu.createBuffers(small);
  const parameterBytes = [...wanted.byteLengths, ...small].reduce((sum, bytes) => sum + bytes, 0);
  return { gpu, places: { arrays, told, loss, lossSum, norm, partials }, ring, parameterBytes };
}

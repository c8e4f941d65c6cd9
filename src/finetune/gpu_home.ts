/**
 * What a trainer keeps on a GPU whatever the batch: the arrays of the parameters, and the few numbers that steps are told and tell.
 * @module
 */
import { initialLossScale } from "../kernels/loss_scale/reference.ts";
import { lossScaleBytes, lossScaleWords } from "../kernels/loss_scale/wgsl.ts";
import type { GpuExecutor } from "../webgpu/executor.ts";
import { gpuArrays } from "./gpu_arrays.ts";
import { type GpuPlaces, partialBytes } from "./gpu_step_plan.ts";
import { toldBytes } from "./gpu_told.ts";
import type { TrainerOptions, TrainerShape } from "./trainer_needs.ts";

/** Steps whose results wait on the device at most. */
export const ringSteps = 16;

/** In the ring a step has three ranges: the loss, the norm of the gradients, and the loss scale of the next step if there is one. */
export const ringLayout = { loss: 0, norm: 256, lossScale: 512, stepBytes: 768 } as const;

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
    ...(options.precision === "fp16" ? [lossScaleBytes] : []),
  ];
  const [told, loss, lossSum, norm, partials, ring, lossScale] = await gpu.createBuffers(small);
  if (lossScale !== undefined) gpu.write(lossScale, 0, lossScaleWords(initialLossScale));
  const parameterBytes = [...wanted.byteLengths, ...small].reduce((sum, bytes) => sum + bytes, 0);
  return { gpu, places: { arrays, told, loss, lossSum, norm, partials, lossScale }, ring, parameterBytes };
}

/**
 * Masks by magnitude that a GPU makes of the weights it has. The bits are the host's (`src/pruning`), and no weight is fetched.
 * @module
 */
import {
  checkMaskReport,
  magnitudeMaskCalls,
  magnitudeMaskScratchBytes,
  type MaskedMatrix,
} from "../kernels/magnitude_mask/wgsl.ts";
import { zeroPrunedCalls } from "../kernels/magnitude_mask/wgsl_zero.ts";
import type { BufferRange, ShaderCall } from "../kernels/shader.ts";
import { bitsetWords } from "../pruning/bitset.ts";
import { countToPrune } from "../pruning/method.ts";
import { blockShape, weightGroup } from "../pruning/pattern.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import { flatRange } from "./gpu_arrays.ts";
import type { GpuHome } from "./gpu_home.ts";
import { wordsAt } from "./gpu_told.ts";
import type { ParameterLayout, ParameterSlot } from "./parameters.ts";
import type { MagnitudeRefresh } from "./step_engine.ts";

/** Whether a GPU can: weights one by one or in N:M, each matrix seen whole. Blocks are for the host. */
export function canPrune(refresh: MagnitudeRefresh, layout: ParameterLayout, { gpu }: GpuHome): boolean {
  const { rows, columns } = blockShape(refresh.pattern);
  return rows * columns === 1 &&
    slotsOf(refresh, layout).every(({ length }) => 4 * length <= gpu.target.maxBindingBytes);
}

/**
 * Renews the masks on the device, and zeroes there what they prune. Gives all masks. Throws `InputError` for a weight that is
 * NaN: no mask of the matrices that compete with it has changed then.
 */
export async function pruneOnGpu(
  refresh: MagnitudeRefresh,
  layout: ParameterLayout,
  home: GpuHome,
): Promise<Uint32Array> {
  const { gpu, places: { arrays } } = home;
  const slots = slotsOf(refresh, layout);
  const matrices = slots.map((slot) => maskedMatrix(slot, home));
  const group = weightGroup(refresh.pattern);
  const scratchBytes = magnitudeMaskScratchBytes(matrices, group);
  const [scratch, report] = await gpu.createBuffers([scratchBytes, 4 * slots.length]);
  const select = (competing: readonly MaskedMatrix[], first: number): ShaderCall[] => {
    const weights = competing.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
    return magnitudeMaskCalls({
      matrices: competing,
      prunedCount: countToPrune(refresh.pattern, refresh.sparsity, weights),
      group,
      scratch: { buffer: scratch, byteOffset: 0, byteLength: magnitudeMaskScratchBytes(competing, group) },
      report: wordsAt(report, 4 * first, competing.length),
      target: gpu.target,
    });
  };
  const program = await gpu.load({
    name: "masks",
    calls: [
      ...(refresh.scope === "global"
        ? select(matrices, 0)
        : matrices.flatMap((matrix, index) => select([matrix], index))),
      ...zeroPrunedCalls({
        ranges: slots.map((slot, index) => ({
          mask: matrices[index].mask,
          arrays: [arrays.weights, ...arrays.states].map((array) => rangeOf(slot, array, home)),
          count: slot.length,
        })),
        target: gpu.target,
      }),
    ],
  });
  await gpu.submit(program);
  const words = layout.prunableLength / 32;
  const [found, masks] = await gpu.read([wordsAt(report, 0, slots.length), wordsAt(arrays.mask, 0, words)]);
  gpu.unload(program);
  gpu.destroyBuffers([scratch, report]);
  checkMaskReport(slots.map(({ name }) => name), new Uint32Array(found));
  return new Uint32Array(masks);
}

function slotsOf({ names }: MagnitudeRefresh, { slots }: ParameterLayout): ParameterSlot[] {
  return slots.filter(({ name }) => isPrunable(name) && names.has(name));
}

function maskedMatrix(slot: ParameterSlot, home: GpuHome): MaskedMatrix {
  const { shape: [rows, columns], offset, length } = slot;
  const { arrays } = home.places;
  return {
    rows,
    columns,
    weights: rangeOf(slot, arrays.weights, home),
    mask: wordsAt(arrays.mask, offset / 8, bitsetWords(length)),
  };
}

function rangeOf(
  { offset, length }: ParameterSlot,
  array: readonly number[],
  { places: { arrays } }: GpuHome,
): BufferRange {
  return flatRange(arrays, array, { begin: offset, count: length });
}

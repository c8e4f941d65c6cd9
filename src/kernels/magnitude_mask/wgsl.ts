/**
 * Masks by magnitude on the GPU: the same as `selectMasks` in src/pruning makes of the same weights, bit for bit.
 *
 * A radix select on the bits of |w|, which are in order as integers are: three histograms find the threshold, and the ties at
 * it are counted through in order. Atomics add integers only, so that their order does not matter.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { type BufferRange, linearGrid, type ShaderCall, type ShaderTarget, uniformWords } from "../shader.ts";
import { bindWords } from "../wgsl_ranges.ts";
import { digits, layOut, type MaskedMatrix, type WeightGroup, workgroupSize } from "./layout.ts";
import { applyShader, tiesBeforeShader, tiesShader } from "./wgsl_apply.ts";
import { clearShader, digitShader, histogramShader, spareShader } from "./wgsl_threshold.ts";

export type { MaskedMatrix, WeightGroup } from "./layout.ts";

/** Which matrices to prune, and how far. Weights, masks, scratch and report are in different buffers. */
export interface MagnitudeMaskRequest {
  /** Ranked together: one for a sparsity of each layer, all for a global one. */
  readonly matrices: readonly MaskedMatrix[];
  /** How many weights of all of them are to be pruned, those pruned already among them: `countToPrune` in src/pruning. */
  readonly prunedCount: number;
  /** N:M, which never prunes more than M − N of a group. Absent: weights are pruned one by one. */
  readonly group?: WeightGroup;
  /** `magnitudeMaskScratchBytes` of it. Selections that follow one another may share it. */
  readonly scratch: BufferRange;
  /** A u32 for each matrix, from any word: where it has its first NaN, or 2³² − 1. See `checkMaskReport`. */
  readonly report: BufferRange;
  readonly target: ShaderTarget;
}

/** Bytes of `MagnitudeMaskRequest.scratch`. */
export function magnitudeMaskScratchBytes(
  matrices: readonly Pick<MaskedMatrix, "rows" | "columns">[],
  group?: WeightGroup,
): number {
  return 4 * layOut(matrices, group).words;
}

/**
 * Calls that renew the masks: the smallest |w| of all matrices together are pruned, `prunedCount` or all that N:M lets. What is
 * pruned stays so, even where that is more. Among equals those that come first are pruned, by matrix and then by index.
 *
 * Where a weight is NaN the report says so and no mask changes. Weights are left as they are: see `zeroPrunedCalls`.
 *
 * Throws RangeError for a count of weights that there are not.
 */
export function magnitudeMaskCalls(
  { matrices, prunedCount, group, scratch, report, target }: MagnitudeMaskRequest,
): ShaderCall[] {
  const layout = layOut(matrices, group);
  const total = layout.lists.reduce((sum, { count }) => sum + count, 0);
  if (!Number.isInteger(prunedCount) || prunedCount < 0 || prunedCount > total) {
    throw new RangeError(`Cannot prune ${prunedCount} of ${total} units`);
  }
  const grouped = group !== undefined;
  const reports = bindWords(report);
  const masks = matrices.map(({ mask }) => bindWords(mask));

  const clearGrid = linearGrid(
    Math.ceil(Math.max(layout.zeroWords, matrices.length) / workgroupSize),
    target,
  );
  const calls: ShaderCall[] = [{
    shader: clearShader,
    ranges: [scratch, reports.range],
    uniforms: uniformWords(layout.zeroWords, matrices.length, clearGrid[0], reports.firstWord),
    workgroups: clearGrid,
  }];
  const callEach = (shader: ShaderCall["shader"], more: readonly BufferRange[] = []) =>
    layout.lists.forEach(({ count, chunks, spared, ties }, index) => {
      const { range, firstWord } = masks[index];
      const workgroups = linearGrid(chunks, target);
      const reportWord = reports.firstWord + index;
      calls.push({
        shader,
        ranges: [scratch, matrices[index].weights, range, ...more],
        uniforms: uniformWords(count, chunks, workgroups[0], firstWord, spared, ties, reportWord),
        workgroups,
      });
    });

  if (group) {
    matrices.forEach(({ rows, columns, weights }, index) => {
      const { range, firstWord } = masks[index];
      const perRow = Math.ceil(columns / group.size);
      const groups = rows * perRow;
      const workgroups = linearGrid(Math.ceil(groups / workgroupSize), target);
      const { spared } = layout.lists[index];
      calls.push({
        shader: spareShader(group),
        ranges: [scratch, weights, range],
        uniforms: uniformWords(columns, perRow, groups, workgroups[0], firstWord, spared),
        workgroups,
      });
    });
  }
  digits.forEach((digit, index) => {
    callEach(histogramShader(digit, grouped), index === 0 ? [reports.range] : []);
    calls.push({
      shader: digitShader(digit),
      ranges: [scratch],
      uniforms: uniformWords(prunedCount),
      workgroups: [1, 1, 1],
    });
  });
  callEach(tiesShader(grouped));
  calls.push({
    shader: tiesBeforeShader,
    ranges: [scratch],
    uniforms: uniformWords(layout.zeroWords, layout.chunks),
    workgroups: [1, 1, 1],
  });
  callEach(applyShader(grouped));
  return calls;
}

/** Throws the InputError of `selectMasks` for the first matrix that a report has a NaN of; `names` are those of the matrices. */
export function checkMaskReport(names: readonly string[], report: Uint32Array): void {
  names.forEach((name, index) => {
    if (report[index] === 0xffffffff) return;
    throw new InputError(`Cannot prune ${name}: score ${report[index]} is NaN, wanted a number`);
  });
}

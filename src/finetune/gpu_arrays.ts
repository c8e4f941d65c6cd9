/**
 * The flat arrays of the parameters in device memory: weights, gradients, states, each in one buffer where it fits, else in
 * several that begin with a parameter. Plain data.
 * @module
 */
import type { ValueType } from "../graph/graph.ts";
import type { BufferRange, ShaderOperand, ShaderTarget } from "../kernels/shader.ts";
import type { UpdateRule } from "../kernels/optimizer/rule.ts";
import { operandAt } from "../webgpu/operands.ts";
import { type ParameterLayout, slotEnd } from "./parameters.ts";

/** Elements of the flat range that lie in one buffer of each array. */
export interface Segment {
  readonly begin: number;
  readonly end: number;
}

/**
 * Cuts the flat range so that as much as a binding may span lies together. A parameter that is larger has a segment of its own:
 * operations take it in parts.
 */
export function segmentsOf({ slots }: ParameterLayout, { maxBindingBytes }: ShaderTarget): Segment[] {
  const segments: { begin: number; end: number }[] = [];
  for (const slot of slots) {
    const last = segments.at(-1);
    const end = slotEnd(slot);
    if (last && 4 * (end - last.begin) <= maxBindingBytes) last.end = end;
    else segments.push({ begin: slot.offset, end });
  }
  return segments;
}

/** A flat array: the numbers of its buffers, segment by segment. */
export type FlatArray = readonly number[];

/** All that belongs to each parameter, on the device. */
export interface GpuArrays {
  readonly segments: readonly Segment[];
  readonly weights: FlatArray;
  readonly gradients: FlatArray;
  /** Sums of gradients, if several batches make a step. */
  readonly gradientSums?: FlatArray;
  /** In the rule's order. */
  readonly states: readonly FlatArray[];
  /** The bits of the prunable range, in one buffer. */
  readonly mask: number;
}

/** Bytes of the buffers of `GpuArrays`, and how to name them once they are made. */
export function gpuArrays(
  layout: ParameterLayout,
  rule: UpdateRule,
  target: ShaderTarget,
  accumulates: boolean,
): { readonly byteLengths: readonly number[]; name(buffers: readonly number[]): GpuArrays } {
  const segments = segmentsOf(layout, target);
  const flat = segments.map(({ begin, end }) => 4 * (end - begin));
  const arrays = 2 + rule.states.length + (accumulates ? 1 : 0);
  const byteLengths = [...Array.from({ length: arrays }, () => flat).flat(), layout.prunableLength / 8];
  return {
    byteLengths,
    name(buffers) {
      const array = (index: number) => buffers.slice(index * flat.length, (index + 1) * flat.length);
      return {
        segments,
        weights: array(0),
        gradients: array(1),
        states: rule.states.map((_, index) => array(2 + index)),
        gradientSums: accumulates ? array(arrays - 1) : undefined,
        mask: buffers[byteLengths.length - 1],
      };
    },
  };
}

/** The range of elements that lie in one segment. */
export function flatRange(
  { segments }: Pick<GpuArrays, "segments">,
  array: FlatArray,
  { begin, count }: { readonly begin: number; readonly count: number },
): BufferRange {
  const index = segments.findIndex((segment) => segment.begin <= begin && begin + count <= segment.end);
  if (index < 0) throw new RangeError(`Cannot find ${count} elements from ${begin} on in one buffer`);
  return { buffer: array[index], byteOffset: 4 * (begin - segments[index].begin), byteLength: 4 * count };
}

/** Where a parameter of an array lies, for operations. */
export function flatOperand(
  arrays: Pick<GpuArrays, "segments">,
  array: FlatArray,
  { name, offset, length }: { readonly name: string; readonly offset: number; readonly length: number },
  type: ValueType,
  target: ShaderTarget,
): ShaderOperand {
  return operandAt(name, type, flatRange(arrays, array, { begin: offset, count: length }), target);
}

/** Cuts a stretch where another buffer begins, and into what a binding may span. */
export function piecesOf<S extends { readonly begin: number; readonly count: number }>(
  { segments }: Pick<GpuArrays, "segments">,
  stretch: S,
  { maxBindingBytes }: ShaderTarget,
): S[] {
  // Pieces begin at multiples of 256 bytes, as slots do.
  const most = Math.floor(maxBindingBytes / 256) * 64;
  const pieces: S[] = [];
  for (const segment of segments) {
    const end = Math.min(segment.end, stretch.begin + stretch.count);
    for (let begin = Math.max(segment.begin, stretch.begin); begin < end; begin += most) {
      pieces.push({ ...stretch, begin, count: Math.min(most, end - begin) });
    }
  }
  return pieces;
}

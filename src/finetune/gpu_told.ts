/**
 * What the device is told before a program runs: the scalars of the step, the dropout key and the batch. It lies in one buffer,
 * so that telling is one write.
 * @module
 */
import type { UpdateRule } from "../kernels/optimizer/rule.ts";
import type { BufferRange } from "../kernels/shader.ts";
import { alignUp } from "../plan/memory.ts";
import { rangeGrain } from "../webgpu/operands.ts";
import type { TrainerOptions, TrainerShape } from "./trainer_needs.ts";
import type { InputArray, InputViews } from "./training_model.ts";

/** Bytes from the buffer's start. Up to the inputs all layouts of a trainer are the same. */
export interface ToldLayout {
  /** The scalars block of each parameter group. */
  readonly scalars: readonly number[];
  /** The factor on a batch's gradients, if several make a step. */
  readonly share: number;
  /** The words of the dropout key. */
  readonly seed: number;
  readonly inputs: ReadonlyMap<string, number>;
  readonly byteLength: number;
}

/** Lays out what is told for batches with these inputs. */
export function toldLayout(
  rule: UpdateRule,
  groups: number,
  inputs: Readonly<Record<string, InputArray>> = {},
): ToldLayout {
  let end = 0;
  const take = (elements: number) => {
    const begin = end;
    end = alignUp(end + 4 * elements, rangeGrain);
    return begin;
  };
  return {
    scalars: Array.from({ length: groups }, () => take(rule.scalars.length)),
    share: take(1),
    seed: take(2),
    inputs: new Map(Object.entries(inputs).map(([name, { length }]) => [name, take(length)])),
    byteLength: end,
  };
}

/** Bytes of what is told of the largest batch. */
export function toldBytes<Example>(
  { model }: Pick<TrainerOptions<Example>, "model">,
  { rule, groups, capacity }: Pick<TrainerShape, "rule" | "groups" | "capacity">,
): number {
  return toldLayout(rule, groups.length, model.inputs(capacity)).byteLength;
}

/** The range of a few words. */
export function wordsAt(buffer: number, byteOffset: number, words: number): BufferRange {
  return { buffer, byteOffset, byteLength: 4 * words };
}

/** The arrays of a batch, in the bytes that are to be written. */
export function toldViews(
  { inputs: offsets }: ToldLayout,
  inputs: Readonly<Record<string, InputArray>>,
  bytes: ArrayBuffer,
): InputViews {
  return new Map(
    Object.entries(inputs).map(([name, { dtype, length }]) => {
      const View = dtype === "i32" ? Int32Array : Float32Array;
      return [name, new View(bytes, offsets.get(name)!, length)];
    }),
  );
}

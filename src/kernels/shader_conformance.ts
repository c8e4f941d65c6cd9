/**
 * The GPU's part of the suite that every operation passes: its shaders against its reference.
 *
 * Where there is no adapter it says so once; with `LACUNA_REQUIRE_WEBGPU=1` that is an error instead.
 * @module
 */
import { elementCount, type ValueType } from "../graph/graph.ts";
import type { NumberArray, Operation } from "../graph/operation.ts";
import { findAdapter, openGpu } from "../webgpu/adapter.ts";
import { DeviceExecutor } from "../webgpu/device_executor.ts";
import type { GpuExecutor } from "../webgpu/executor.ts";
import { lowerings } from "../webgpu/lowerings.ts";
import { elementOf, storedBytes } from "../webgpu/operands.ts";
import { firstBitDifference, poison } from "./run_operation.ts";
import type { BufferRange, ShaderCall, ShaderLowering, ShaderOperand, ShaderTarget } from "./shader.ts";
import { callInHalves } from "./wgsl_halves.ts";

/** Ranges begin here in their buffers, and are followed by as much: canaries. */
const margin = 256;

/** A GPU to test shaders on, and what they are made for: what it says of itself, unless a test says otherwise. */
export interface TestGpu {
  readonly executor: GpuExecutor;
  readonly target: ShaderTarget;
}

let opened: Promise<TestGpu | undefined> | undefined;

/** The GPU that tests use, opened once; undefined, with the reason printed once, where there is none. */
export function testGpu(): Promise<TestGpu | undefined> {
  return opened ??= openTestGpu();
}

async function openTestGpu(): Promise<TestGpu | undefined> {
  const adapter = await findAdapter();
  if (adapter) {
    const executor = new DeviceExecutor(await openGpu(adapter));
    return { executor, target: executor.target };
  }
  const reason =
    "WebGPU finds no adapter (on Debian, mesa-vulkan-drivers and libvulkan1 give a software one)";
  if (Deno.env.get("LACUNA_REQUIRE_WEBGPU") === "1") throw new Error(reason);
  console.log(`shaders are not tested: ${reason}`);
  return undefined;
}

/** The lowering of an operation; undefined where it does not run on the GPU. */
export function loweringOf<A>(operation: Operation<A>): ShaderLowering<A> | undefined {
  return lowerings.get(operation.name) as ShaderLowering<A> | undefined;
}

/**
 * Runs one operation on the GPU. Takes and gives tiled values in row-major order. Runs twice on buffers that held other things:
 * both must give the same bits, and leave what is around the results alone. `rowsPerPart` splits operands into parts of so many
 * rows, as large tables are: by the number of the operand, inputs first.
 */
export async function runLowering<A>(
  gpu: TestGpu,
  lowering: ShaderLowering<A>,
  attributes: A,
  inputs: readonly (NumberArray | undefined)[],
  inputTypes: readonly (ValueType | undefined)[],
  rowsPerPart: ReadonlyMap<number, number> = new Map(),
): Promise<NumberArray[]> {
  const { operation } = lowering;
  const outputTypes = operation.infer(inputTypes, attributes);
  const scratchBytes = lowering.scratchBytes?.({ attributes, inputTypes, outputTypes }, gpu.target) ?? [];
  const sizes: number[] = [];
  const place = (bytes: number): BufferRange => ({
    buffer: sizes.push(bytes) - 1,
    byteOffset: margin,
    byteLength: Math.ceil(bytes / 4) * 4,
  });
  const operandOf = (type: ValueType, index: number): ShaderOperand => {
    const [allRows, ...others] = type.shape;
    const element = elementOf(type, gpu.target);
    const rows = rowsPerPart.get(index) ?? allRows;
    const parts = Array.from({ length: rows < allRows ? Math.ceil(allRows / rows) : 1 }, (_, part) => {
      const shape = [Math.min(rows, allRows - part * rows), ...others];
      return place(storedBytes({ type: { ...type, shape }, element }));
    });
    return { type, element, parts, rowsPerPart: rows };
  };
  const inputOperands = inputTypes.map((type, index) => type && operandOf(type, index));
  const outputOperands = outputTypes.map((type, index) => operandOf(type, inputTypes.length + index));
  const halves = new Set(
    [...inputOperands, ...outputOperands].flatMap((operand) => operand?.element ? operand.parts : []),
  );
  const calls = lowering.lower({
    attributes,
    inputs: inputOperands,
    outputs: outputOperands,
    scratch: scratchBytes.map(place),
    target: gpu.target,
  }).map((call) => callInHalves(call, halves));
  const contents = new Map<number, Uint32Array>();
  inputOperands.forEach((operand, index) => {
    if (!operand) return;
    const words = deviceWords(inputs[index]!, operand);
    let begin = 0;
    for (const { buffer, byteLength } of operand.parts) {
      contents.set(buffer, words.subarray(begin, begin += byteLength / 4));
    }
  });
  const written = outputOperands.flatMap(({ parts }) => parts);
  const run = async (fill: number) => {
    const parts = await runCalls(gpu, calls, sizes, contents, written, fill);
    return outputOperands.map((operand) => {
      const words = parts.splice(0, operand.parts.length).flatMap((words) => [...words]);
      return hostValues(Uint32Array.from(words), operand);
    });
  };
  const first = await run(poison);
  const second = await run(0x7f7f7f7f);
  first.forEach((result, index) => {
    const element = firstBitDifference(result, second[index]);
    if (element < 0) return;
    throw new Error(
      `${operation.name} output ${index} depends on what memory held: element ${element} is ${
        result[element]
      }, ` +
        `then ${second[index][element]}`,
    );
  });
  return first;
}

/**
 * Runs calls on buffers of `sizes`, each between canaries and filled with `contents` or else with the word `fill`; gives the
 * words of `results`. Throws what WebGPU finds wrong.
 */
export async function runCalls(
  { executor }: TestGpu,
  calls: readonly ShaderCall[],
  sizes: readonly number[],
  contents: ReadonlyMap<number, Uint32Array>,
  results: readonly BufferRange[],
  fill: number,
): Promise<Uint32Array[]> {
  const byteLengths = sizes.map((bytes) => 2 * margin + Math.ceil(bytes / margin) * margin);
  const numbers = await executor.createBuffers(byteLengths);
  const placed = (range: BufferRange): BufferRange => ({ ...range, buffer: numbers[range.buffer] });
  for (const [index, byteLength] of byteLengths.entries()) {
    const words = new Uint32Array(byteLength / 4).fill(fill);
    words.set(contents.get(index) ?? [], margin / 4);
    executor.write(numbers[index], 0, words);
  }
  const program = await executor.load({
    name: "the shaders tested",
    calls: calls.map((call) => ({ ...call, ranges: call.ranges.map(placed) })),
  });
  await executor.submit(program);
  const whole = ({ buffer }: BufferRange) => ({ buffer, byteOffset: 0, byteLength: byteLengths[buffer] });
  const found = await executor.read(results.map((range) => placed(whole(range))));
  executor.unload(program);
  executor.destroyBuffers(numbers);
  return found.map((bytes, index) => {
    const words = new Uint32Array(bytes);
    const { byteOffset, byteLength, buffer } = results[index];
    const [begin, end] = [byteOffset / 4, (byteOffset + byteLength) / 4];
    const stray = words.findIndex((word, at) => (at < begin || at >= end) && word !== fill >>> 0);
    if (stray >= 0) throw new Error(`word ${stray - begin} of buffer ${buffer}, outside of it, was written`);
    return words.slice(begin, end);
  });
}

/** What the device holds for an array: tiled matrices transposed. */
function deviceWords(array: NumberArray, { type, element }: ShaderOperand): Uint32Array {
  const typed = type.dtype === "i32" ? Int32Array.from(array) : Float32Array.from(array);
  // Moved as words: a Float32Array assignment may change the bits of a NaN.
  const words = new Uint32Array(typed.buffer);
  const plain = type.layout === "tiled" ? transpose(words, type.shape[0], type.shape[1]) : words;
  if (element !== "f16") return plain;
  const halves = new Float16Array(2 * Math.ceil(plain.length / 2));
  halves.set(new Float32Array(plain.buffer));
  return new Uint32Array(halves.buffer);
}

function hostValues(words: Uint32Array, { type, element }: ShaderOperand): NumberArray {
  const count = elementCount(type);
  const whole = element === "f16"
    ? new Uint32Array(Float32Array.from(new Float16Array(words.buffer, 0, count)).buffer)
    : words;
  const plain = type.layout === "tiled" ? transpose(whole, type.shape[1], type.shape[0]) : whole;
  return type.dtype === "i32"
    ? new Int32Array(plain.buffer, plain.byteOffset, count)
    : new Float32Array(plain.buffer, plain.byteOffset, count);
}

/** [rows, columns] to [columns, rows]. */
function transpose(words: Uint32Array, rows: number, columns: number): Uint32Array {
  const result = new Uint32Array(words.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = words[row * columns + column];
    }
  }
  return result;
}

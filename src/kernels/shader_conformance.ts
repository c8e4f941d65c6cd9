/**
 * The GPU's part of the suite that every operation passes: its shaders against its reference.
 *
 * Where there is no adapter it says so once; with `LACUNA_REQUIRE_WEBGPU=1` that is an error instead.
 * @module
 */
import { elementCount, type ValueType } from "../graph/graph.ts";
import type { NumberArray, Operation } from "../graph/operation.ts";
import { findAdapter, type OpenGpu, openGpu } from "../webgpu/adapter.ts";
import { lowerings } from "../webgpu/lowerings.ts";
import { elementOf, storedBytes } from "../webgpu/operands.ts";
import { firstBitDifference, poison } from "./run_operation.ts";
import type { BufferRange, Shader, ShaderCall, ShaderLowering, ShaderOperand } from "./shader.ts";
import { callInHalves } from "./wgsl_halves.ts";

/** Ranges begin here in their buffers, and are followed by as much: canaries. */
const margin = 256;

let opened: Promise<OpenGpu | undefined> | undefined;

/** The GPU that tests use, opened once; undefined, with the reason printed once, where there is none. */
export function testGpu(): Promise<OpenGpu | undefined> {
  return opened ??= openTestGpu();
}

async function openTestGpu(): Promise<OpenGpu | undefined> {
  const adapter = await findAdapter();
  if (adapter) return await openGpu(adapter);
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
  gpu: OpenGpu,
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
  { device }: OpenGpu,
  calls: readonly ShaderCall[],
  sizes: readonly number[],
  contents: ReadonlyMap<number, Uint32Array>,
  results: readonly BufferRange[],
  fill: number,
): Promise<Uint32Array[]> {
  device.pushErrorScope("validation");
  device.pushErrorScope("out-of-memory");
  const buffers = sizes.map((bytes, index) => {
    const buffer = device.createBuffer({
      size: 2 * margin + Math.ceil(bytes / margin) * margin,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC,
    });
    const words = new Uint32Array(buffer.size / 4).fill(fill);
    words.set(contents.get(index) ?? [], margin / 4);
    device.queue.writeBuffer(buffer, 0, words);
    return buffer;
  });
  const encoder = device.createCommandEncoder();
  for (const call of calls) encodeCall(device, encoder, call, buffers);
  const readbacks = results.map(({ buffer }) => {
    const { size } = buffers[buffer];
    const readback = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    encoder.copyBufferToBuffer(buffers[buffer], 0, readback, 0, size);
    return readback;
  });
  device.queue.submit([encoder.finish()]);
  const errors = [await device.popErrorScope(), await device.popErrorScope()];
  for (const error of errors) if (error) throw new Error(error.message);
  const all: Uint32Array[] = [];
  for (const [index, readback] of readbacks.entries()) {
    await readback.mapAsync(GPUMapMode.READ);
    const words = new Uint32Array(readback.getMappedRange().slice(0));
    const { byteOffset, byteLength, buffer } = results[index];
    const [begin, end] = [byteOffset / 4, (byteOffset + byteLength) / 4];
    const stray = words.findIndex((word, at) => (at < begin || at >= end) && word !== fill >>> 0);
    if (stray >= 0) throw new Error(`word ${stray - begin} of buffer ${buffer}, outside of it, was written`);
    all.push(words.slice(begin, end));
    readback.destroy();
  }
  for (const buffer of buffers) buffer.destroy();
  return all;
}

const pipelines = new Map<string, { code: string; pipeline: GPUComputePipeline }>();

function pipelineOf(device: GPUDevice, { key, code, bindings }: Shader): GPUComputePipeline {
  const known = pipelines.get(key);
  if (known && known.code !== code) {
    throw new Error(`shader ${key} has two codes: its key forgets a constant`);
  }
  if (known) return known.pipeline;
  const types = { read: "read-only-storage", write: "storage", uniform: "uniform" } as const;
  const layout = device.createBindGroupLayout({
    entries: bindings.map((use, binding) => ({
      binding,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: types[use] },
    })),
  });
  const pipeline = device.createComputePipeline({
    label: key,
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: { module: device.createShaderModule({ label: key, code }), entryPoint: "main" },
  });
  pipelines.set(key, { code, pipeline });
  return pipeline;
}

function encodeCall(
  device: GPUDevice,
  encoder: GPUCommandEncoder,
  { shader, ranges, uniforms, workgroups }: ShaderCall,
  buffers: readonly GPUBuffer[],
): void {
  const pipeline = pipelineOf(device, shader);
  const rest = [...ranges];
  const entries = shader.bindings.map((use, binding) => {
    if (use !== "uniform") {
      const { buffer, byteOffset, byteLength } = rest.shift()!;
      return { binding, resource: { buffer: buffers[buffer], offset: byteOffset, size: byteLength } };
    }
    const words = new Uint32Array(Math.ceil(uniforms!.length / 4) * 4);
    words.set(uniforms!);
    const buffer = device.createBuffer({
      size: words.byteLength,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    device.queue.writeBuffer(buffer, 0, words);
    return { binding, resource: { buffer } };
  });
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(...workgroups);
  pass.end();
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

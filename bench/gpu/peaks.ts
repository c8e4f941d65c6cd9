/**
 * What a GPU can do at most, measured by shaders that do nothing else: multiply-adds in registers, and copying.
 *
 * The shares of peak of `matmul_sweep.ts` are shares of these, so that like is compared with like: what WGSL can reach
 * without tensor cores.
 * @module
 */
import { linearGrid, type Shader, uniformWords } from "../../src/kernels/shader.ts";
import type { GpuTimer } from "./timer.ts";

/** The measured limits. Rates are those of the best run. */
export interface GpuPeaks {
  /** fp32 multiply-adds, 2 operations each, in 10¹² operations a second. */
  readonly fp32_tflops: number;
  /** The same in fp16, two in a register; absent without `shader-f16`. */
  readonly fp16_tflops?: number;
  /** A shader that copies `copy_bytes`: bytes read and written, in 10⁹ a second. */
  readonly copy_gb_s: number;
  /** The same by `copyBufferToBuffer`. */
  readonly buffer_copy_gb_s: number;
  readonly copy_bytes: number;
  /** `GpuTimer.compareClocks`: far from 1, all times by timestamps are in another unit than milliseconds. */
  readonly clock_ratio?: number;
}

/** How much work the shaders get. */
export interface PeakSizes {
  readonly workgroups: number;
  /** Turns of the loop of multiply-adds. */
  readonly turns: number;
  /** Bytes that are copied, far more than a cache holds; less where a binding may span less. */
  readonly copyBytes: number;
}

/** Some milliseconds of a large GPU. */
export const peakSizes: PeakSizes = { workgroups: 8192, turns: 1024, copyBytes: 2 ** 29 };

const workgroupSize = 256;
/** Independent sums of an invocation, which hide the latency of one. */
const sums = 8;
/** Multiply-adds of each sum in a turn, so that the loop itself costs little. */
const unrolled = 16;
/** Numbers in the type of a sum. */
const width = { f32: 4, f16: 2 } as const;

type Element = keyof typeof width;

/** Measures all of them. Throws when an answer is wrong. */
export async function measurePeaks(timer: GpuTimer, sizes: PeakSizes): Promise<GpuPeaks> {
  const { f16, maxBindingBytes } = timer.gpu.target;
  const fp32 = await measureMultiplyAdds(timer, "f32", sizes);
  const fp16 = f16 ? await measureMultiplyAdds(timer, "f16", sizes) : undefined;
  const copyBytes = Math.floor(Math.min(sizes.copyBytes, maxBindingBytes) / 4096) * 4096;
  return {
    fp32_tflops: fp32,
    ...(fp16 === undefined ? {} : { fp16_tflops: fp16 }),
    ...await measureCopies(timer, copyBytes),
    copy_bytes: copyBytes,
  };
}

/** In 10¹² operations a second. */
async function measureMultiplyAdds(timer: GpuTimer, element: Element, sizes: PeakSizes): Promise<number> {
  const { workgroups: [x, y], count } = gridOf(sizes.workgroups, timer);
  const invocations = count * workgroupSize;
  const result = timer.buffer(4 * invocations);
  const [factor, term] = element === "f32" ? [1, 2 ** -20] : [-1, 1];
  const recording = await timer.load(`peak ${element}`, [{
    shader: multiplyAddShader(element),
    ranges: [{ buffer: 0, byteOffset: 0, byteLength: result.size }],
    // Numbers that the compiler does not know, and that keep every sum exact: fp16 goes from 0 to 1 and back.
    uniforms: uniformWords(sizes.turns, { f32: factor }, { f32: term }, x),
    workgroups: [x, y, 1],
  }], [result]);
  try {
    const { best_ms } = await timer.measure((encoder) => recording.encode(encoder));
    const additions = sizes.turns * unrolled;
    const expected = element === "f32" ? sums * width.f32 * additions * term : 0;
    const [first, last] = await timer.read(result, [0, invocations - 1]);
    if (first !== expected || last !== expected) {
      throw new Error(`the multiply-adds of ${element} summed to ${first} and ${last}, wanted ${expected}`);
    }
    return 2 * width[element] * sums * additions * invocations / best_ms / 1e9;
  } finally {
    recording.destroy();
    result.destroy();
  }
}

/** A grid of about so many workgroups, all of them whole. */
function gridOf(wanted: number, { gpu: { target } }: GpuTimer) {
  const workgroups = linearGrid(wanted, target);
  return { workgroups, count: workgroups[0] * workgroups[1] };
}

/** result[i] = the sum of `sums` vectors that each were set to sum · factor + term, `turns · unrolled` times. */
function multiplyAddShader(element: Element): Shader {
  const vector = `vec${width[element]}<${element}>`;
  const all = Array.from({ length: sums }, (_, sum) => `s${sum}`);
  const step = all.map((sum) => `${sum} = fma(${sum}, factor, term);`).join(" ");
  const parts = Array.from({ length: width[element] }, (_, part) => `f32(total[${part}])`).join(" + ");
  return {
    key: `bench_multiply_add_${element}`,
    bindings: ["write", "uniform"],
    code: `${element === "f16" ? "enable f16;" : ""}
struct Work { turns: u32, factor: f32, term: f32, groupsX: u32 }
@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<uniform> work: Work;
@compute @workgroup_size(${workgroupSize})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let factor = ${vector}(${element}(work.factor));
  let term = ${vector}(${element}(work.term));
${all.map((sum) => `  var ${sum} = ${vector}();`).join("\n")}
  for (var turn = 0u; turn < work.turns; turn++) {
${Array.from({ length: unrolled }, () => `    ${step}`).join("\n")}
  }
  let total = ${all.join(" + ")};
  result[(group.y * work.groupsX + group.x) * ${workgroupSize}u + lane] = ${parts};
}`,
  };
}

async function measureCopies(timer: GpuTimer, bytes: number) {
  const [source, target] = [timer.buffer(bytes), timer.buffer(bytes)];
  const range = (buffer: number) => ({ buffer, byteOffset: 0, byteLength: bytes });
  const vectors = bytes / 16;
  const workgroups = linearGrid(Math.ceil(vectors / workgroupSize), timer.gpu.target);
  const { queue } = timer.gpu.device;
  const last = bytes / 4 - 1;
  queue.writeBuffer(source, 4 * last, Float32Array.of(7));
  const recording = await timer.load("peak copy", [{
    shader: copyShader,
    ranges: [range(0), range(1)],
    uniforms: uniformWords(vectors, workgroups[0]),
    workgroups,
  }], [source, target]);
  try {
    const check = async (what: string) => {
      const [value] = await timer.read(target, [last]);
      if (value !== 7) throw new Error(`${what} copied ${value}, wanted 7`);
      queue.writeBuffer(target, 4 * last, Float32Array.of(0));
    };
    const byShader = await timer.measure((encoder) => recording.encode(encoder));
    await check("the shader");
    const byCommand = await timer.measure((encoder) =>
      encoder.copyBufferToBuffer(source, 0, target, 0, bytes)
    );
    await check("copyBufferToBuffer");
    const rate = (ms: number) => 2 * bytes / ms / 1e6;
    const ratio = await timer.compareClocks((encoder) => recording.encode(encoder));
    return {
      copy_gb_s: rate(byShader.best_ms),
      buffer_copy_gb_s: rate(byCommand.best_ms),
      ...(ratio === undefined ? {} : { clock_ratio: ratio }),
    };
  } finally {
    recording.destroy();
    source.destroy();
    target.destroy();
  }
}

const copyShader: Shader = {
  key: "bench_copy",
  bindings: ["read", "write", "uniform"],
  code: `
struct Work { count: u32, groupsX: u32 }
@group(0) @binding(0) var<storage, read> source: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> copied: array<vec4f>;
@group(0) @binding(2) var<uniform> work: Work;
@compute @workgroup_size(${workgroupSize})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * work.groupsX + group.x) * ${workgroupSize}u + lane;
  if (i < work.count) { copied[i] = source[i]; }
}`,
};

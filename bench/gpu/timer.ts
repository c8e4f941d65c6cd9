/**
 * How long the GPU works on what is encoded: by its own timestamps where they work, else by a clock around long runs.
 * @module
 */
import type { ShaderCall } from "../../src/kernels/shader.ts";
import type { OpenGpu } from "../../src/webgpu/adapter.ts";
import { scoped } from "../../src/webgpu/device_errors.ts";
import { Pipelines } from "../../src/webgpu/pipelines.ts";
import { Recording } from "../../src/webgpu/recording.ts";
import { summarize } from "../measure.ts";

/** What times are taken by. The wall clock includes the start of the work, so it measures longer. */
export type GpuClock = "timestamps" | "wall";

/** Encodes one run of the work. */
export type Encode = (encoder: GPUCommandEncoder) => void;

/** Times of one run, in milliseconds. */
export interface GpuTime {
  readonly best_ms: number;
  readonly median_ms: number;
  /** Runs that were timed, all samples together. */
  readonly runs: number;
}

/** Where and how long samples are taken. */
export interface TimerOptions {
  /** GPU time of all samples of one measurement; default 0.05. */
  readonly seconds?: number;
  /** Default: timestamps where the device has them. */
  readonly clock?: GpuClock;
}

/** Samples of one measurement. Each is one submit of as many runs as its share of the time takes. */
const samples = 5;

/** A wait ends up to 10 ms late (Deno polls), which has to be little beside a sample. */
const wallSampleMs = 300;

/** No submit is longer, by estimate: a driver may take a device away that is silent for seconds. */
const longestSubmitMs = 1000;

const mostRepeats = 10_000;

/** Measures on one device. Its owner destroys the device. */
export class GpuTimer {
  readonly gpu: OpenGpu;
  readonly clock: GpuClock;
  readonly #seconds: number;
  readonly #pipelines: Pipelines;
  readonly #marks: TimestampMarks | undefined;

  constructor(gpu: OpenGpu, { seconds = 0.05, clock }: TimerOptions = {}) {
    this.gpu = gpu;
    this.clock = clock ?? (gpu.device.features.has("timestamp-query") ? "timestamps" : "wall");
    this.#seconds = seconds;
    this.#pipelines = new Pipelines(gpu.device, gpu.target);
    this.#marks = this.clock === "timestamps" ? new TimestampMarks(gpu.device, 2 * samples) : undefined;
  }

  /** A buffer that shaders and copies can use, of zeros. */
  buffer(byteLength: number): GPUBuffer {
    return this.gpu.device.createBuffer({
      size: byteLength,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
  }

  /** Makes calls ready to be encoded; `buffers` by the numbers in their ranges. Throws what WebGPU finds wrong. */
  async load(name: string, calls: readonly ShaderCall[], buffers: readonly GPUBuffer[]): Promise<Recording> {
    const pipelines = await this.#pipelines.compile(calls.map(({ shader }) => shader));
    const { value, problem } = scoped(
      this.gpu.device,
      () => new Recording(this.gpu.device, { name, calls }, pipelines, (index) => buffers[index]),
    );
    const found = await problem;
    if (found !== undefined) throw new Error(`${name}: ${found}`);
    return value;
  }

  /** Times one run of what is encoded, after untimed ones. Runs follow one another without a pause. */
  async measure(encode: Encode): Promise<GpuTime> {
    const wantedMs = this.#marks ? this.#seconds * 1000 / samples : wallSampleMs;
    let repeats = 1;
    let sampleMs = (await this.#sample(encode, 1, 1))[0]; // The first run warms up, and may be far too long.
    do {
      const more = Math.max(2, Math.min(100, wantedMs / Math.max(sampleMs, 1e-3)));
      if (sampleMs < wantedMs) repeats = Math.min(mostRepeats, Math.ceil(repeats * more));
      [sampleMs] = await this.#sample(encode, repeats, 1);
    } while (sampleMs < wantedMs / 2 && repeats < mostRepeats);
    repeats = Math.max(1, Math.min(repeats, Math.floor(repeats * longestSubmitMs / sampleMs)));
    const times = await this.#sample(encode, repeats, samples);
    const runMs = times.map((ms) => ms / repeats);
    return { best_ms: Math.min(...runMs), median_ms: summarize(runMs).p50, runs: repeats * samples };
  }

  /**
   * Time by the GPU's timestamps over time by the clock here, for a run long enough that waiting is little of it: a little less
   * than 1 where both count the same seconds. Undefined without timestamps.
   */
  async compareClocks(encode: Encode): Promise<number | undefined> {
    const marks = this.#marks;
    if (!marks) return undefined;
    const { median_ms } = await this.measure(encode);
    const repeats = Math.max(1, Math.min(mostRepeats, Math.round(wallSampleMs / median_ms)));
    const encoder = this.gpu.device.createCommandEncoder();
    marks.mark(encoder, 0);
    for (let run = 0; run < repeats; run++) encode(encoder);
    marks.mark(encoder, 1);
    const [wallMs] = await this.#timeByWall([encoder.finish()]);
    const [, gpuMs] = await marks.read(2);
    return gpuMs / wallMs;
  }

  /** The f32 numbers of a buffer at some places, when everything before has run. */
  async read(buffer: GPUBuffer, indices: readonly number[]): Promise<Float32Array> {
    const { device } = this.gpu;
    const staging = device.createBuffer({
      size: 4 * indices.length,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    const encoder = device.createCommandEncoder();
    indices.forEach((index, at) => encoder.copyBufferToBuffer(buffer, 4 * index, staging, 4 * at, 4));
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const values = new Float32Array(staging.getMappedRange().slice(0));
    staging.destroy();
    return values;
  }

  /** Milliseconds of each of `count` submits of `repeats` runs. Throws what WebGPU finds wrong. */
  async #sample(encode: Encode, repeats: number, count: number): Promise<number[]> {
    const { device } = this.gpu;
    const marks = this.#marks;
    const { value: commands, problem } = scoped(
      device,
      () =>
        Array.from({ length: count }, (_, sample) => {
          const encoder = device.createCommandEncoder();
          marks?.mark(encoder, 2 * sample);
          for (let run = 0; run < repeats; run++) encode(encoder);
          marks?.mark(encoder, 2 * sample + 1);
          return encoder.finish();
        }),
    );
    const found = await problem;
    if (found !== undefined) throw new Error(found);
    return marks ? await this.#timeByMarks(commands, marks) : await this.#timeByWall(commands);
  }

  async #timeByMarks(commands: readonly GPUCommandBuffer[], marks: TimestampMarks): Promise<number[]> {
    for (const command of commands) this.gpu.device.queue.submit([command]);
    const at = await marks.read(2 * commands.length);
    const times = commands.map((_, sample) => at[2 * sample + 1] - at[2 * sample]);
    if (times.every((ms) => ms > 0)) return times;
    throw new Error(`timestamps of the GPU do not go up: differences of ${times.join(", ")} ms`);
  }

  async #timeByWall(commands: readonly GPUCommandBuffer[]): Promise<number[]> {
    const times: number[] = [];
    for (const command of commands) {
      const begin = performance.now();
      this.gpu.device.queue.submit([command]);
      await this.gpu.device.queue.onSubmittedWorkDone();
      times.push(performance.now() - begin);
    }
    return times;
  }
}

/** Moments on the clock of the GPU. A mark waits for all that was submitted before it. */
export class TimestampMarks {
  readonly #device: GPUDevice;
  readonly #set: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #staging: GPUBuffer;

  /** `count` marks are there to be taken and read, again and again. The device must have `timestamp-query`. */
  constructor(device: GPUDevice, count: number) {
    this.#device = device;
    this.#set = device.createQuerySet({ type: "timestamp", count });
    const { COPY_SRC, COPY_DST, MAP_READ, QUERY_RESOLVE } = GPUBufferUsage;
    this.#resolved = device.createBuffer({ size: 8 * count, usage: QUERY_RESOLVE | COPY_SRC });
    this.#staging = device.createBuffer({ size: 8 * count, usage: MAP_READ | COPY_DST });
  }

  /** Encodes a mark: an empty pass, the only thing that WebGPU lets write a timestamp. */
  mark(encoder: GPUCommandEncoder, index: number): void {
    encoder.beginComputePass({
      timestampWrites: { querySet: this.#set, beginningOfPassWriteIndex: index },
    }).end();
  }

  /** The first `count` marks, in milliseconds since the first, when all of them have been passed. */
  async read(count: number): Promise<number[]> {
    const encoder = this.#device.createCommandEncoder();
    encoder.resolveQuerySet(this.#set, 0, count, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#staging, 0, 8 * count);
    this.#device.queue.submit([encoder.finish()]);
    await this.#staging.mapAsync(GPUMapMode.READ, 0, 8 * count);
    const ticks = [...new BigUint64Array(this.#staging.getMappedRange(0, 8 * count))]; // Nanoseconds.
    this.#staging.unmap();
    return ticks.map((tick) => Number(tick - ticks[0]) / 1e6);
  }
}

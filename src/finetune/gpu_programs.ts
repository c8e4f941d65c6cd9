/**
 * The programs of a trainer on a GPU: one for each mode and number of columns, made when first needed, all on the same buffers.
 *
 * The largest batch is planned first, so that memory is known before the first step; plans of smaller ones find their values
 * in the same buffers.
 * @module
 */
import type { ShaderOperand } from "../kernels/shader.ts";
import type { BatchCapacity } from "./memory.ts";
import { alignUp } from "../plan/memory.ts";
import type { BufferCopy, GpuExecutor } from "../webgpu/executor.ts";
import { relocate, type ShaderPlan } from "../webgpu/shader_plan.ts";
import { type GpuPlaces, planGpuStep, planGpuUpdate } from "./gpu_step_plan.ts";
import { toldBytes, toldLayout, toldViews } from "./gpu_told.ts";
import { type Draw, drawKey } from "./step_engine.ts";
import type { StepMode } from "./step_plan.ts";
import type { TrainerOptions, TrainerShape } from "./trainer_needs.ts";

/** Programs that are kept at a time: an eighth of a megabyte each, on the device and beside it. */
const keptPrograms = 64;

/** What a program is told, besides a batch. */
export interface ToldStep {
  /** The scalars of each parameter group. */
  readonly scalars?: readonly Float32Array[];
  /** The factor on the batch's gradients. */
  readonly share?: number;
  /** Absent: nothing is random. */
  readonly draw?: Draw;
}

interface LoadedProgram {
  readonly program: number;
  readonly outputs: ReadonlyMap<string, ShaderOperand>;
}

/** Runs batches. */
export class GpuPrograms<Example> {
  readonly #options: TrainerOptions<Example>;
  readonly #shape: TrainerShape;
  readonly #gpu: GpuExecutor;
  readonly #places: GpuPlaces;
  /** Buffers of all plans: their bytes and numbers. */
  readonly #pool = { byteLengths: [] as number[], buffers: [] as number[] };
  /** Plans of the largest batch, by mode and variant of the model. */
  readonly #largest = new Map<string, ShaderPlan>();
  /** The longest used come first. */
  readonly #loaded = new Map<string, LoadedProgram>();
  /** What is to be told. */
  readonly #told: ArrayBuffer;

  constructor(
    options: TrainerOptions<Example>,
    shape: TrainerShape,
    gpu: GpuExecutor,
    places: GpuPlaces,
  ) {
    this.#options = options;
    this.#shape = shape;
    this.#gpu = gpu;
    this.#places = places;
    this.#told = new ArrayBuffer(toldBytes(options, shape));
  }

  /** Bytes that all plans made so far take. */
  get byteLength(): number {
    return this.#pool.byteLengths.reduce((sum, bytes) => sum + bytes, 0);
  }

  /**
   * Makes the buffers of the largest batch in these modes, then compiles their shaders, which are those of every batch.
   * @throws UnsupportedError where the device has no room or shaders for it.
   */
  async reserve(modes: readonly StepMode[]): Promise<void> {
    for (const mode of modes) await this.#planLargest(mode);
    const { columns, sequences } = this.#shape.capacity;
    for (const mode of modes) await this.#prepare(mode, { columns, sequences });
  }

  /** Queues a batch, and copies behind it. Gives the places of the model's results. */
  async run(
    mode: StepMode,
    batch: readonly Example[],
    told: ToldStep = {},
    copies?: readonly BufferCopy[],
  ): Promise<ReadonlyMap<string, ShaderOperand>> {
    const { model, seed } = this.#options;
    const columns = alignUp(Math.max(model.sizeOf(batch).columns, 1), this.#gpu.target.columnGrain);
    const size = { columns, sequences: this.#shape.capacity.sequences };
    const { program, outputs } = await this.#prepare(mode, size);
    const inputs = model.inputs(size);
    const layout = toldLayout(this.#shape.rule, this.#shape.groups.length, inputs);
    const { draw } = told;
    model.fill(
      batch,
      toldViews(layout, inputs, this.#told),
      draw && drawKey(seed, "batch", draw),
      mode === "evaluate" ? "evaluate" : "train",
    );
    this.#tell(told, layout.byteLength);
    await this.#gpu.submit(program, copies);
    return outputs;
  }

  /** Queues the update by the sums of gradients, and copies behind it. */
  async update(told: ToldStep, copies: readonly BufferCopy[]): Promise<void> {
    const { program } = await this.#load("update", "", () => planGpuUpdate(this.#request()));
    this.#tell(told, toldLayout(this.#shape.rule, this.#shape.groups.length).byteLength);
    await this.#gpu.submit(program, copies);
  }

  #tell({ scalars, share, draw }: ToldStep, byteLength: number): void {
    const layout = toldLayout(this.#shape.rule, this.#shape.groups.length);
    scalars?.forEach((block, index) =>
      new Float32Array(this.#told, layout.scalars[index], block.length).set(block)
    );
    if (share !== undefined) new Float32Array(this.#told, layout.share, 1)[0] = share;
    if (draw) {
      const key = drawKey(this.#options.seed, "dropout", draw);
      new Int32Array(this.#told, layout.seed, 2).set([key.low | 0, key.high | 0]);
    }
    this.#gpu.write(this.#places.told, 0, new Uint8Array(this.#told, 0, byteLength));
  }

  #prepare(mode: StepMode, size: BatchCapacity): Promise<LoadedProgram> {
    return this.#load(
      `${mode} ${this.#options.model.variant ?? ""}`,
      `${size.columns} columns`,
      async () => planGpuStep(mode, { ...this.#request(), ...size, reuse: await this.#planLargest(mode) }),
    );
  }

  async #load(
    kind: string,
    size: string,
    makePlan: () => ShaderPlan | Promise<ShaderPlan>,
  ): Promise<LoadedProgram> {
    const key = `${kind} ${size}`;
    const known = this.#loaded.get(key);
    if (known) {
      this.#loaded.delete(key);
      this.#loaded.set(key, known);
      return known;
    }
    const plan = await makePlan();
    await this.#grow(plan);
    const { calls, outputs } = relocate(plan, this.#pool.buffers);
    const name = [kind.trim(), size].filter((part) => part !== "").join(", ");
    const loaded = { program: await this.#gpu.load({ name, calls }, this.#options.compiling), outputs };
    this.#loaded.set(key, loaded);
    const [oldest] = this.#loaded;
    if (this.#loaded.size > keptPrograms) {
      this.#gpu.unload(oldest[1].program);
      this.#loaded.delete(oldest[0]);
    }
    return loaded;
  }

  /** The plan of the largest batch as it is now, with all buffers there are: what smaller ones reuse. */
  async #planLargest(mode: StepMode): Promise<ShaderPlan> {
    const key = `${mode} ${this.#options.model.variant ?? ""}`;
    let plan = this.#largest.get(key);
    if (!plan) {
      const { byteLengths } = this.#pool;
      // Nothing is to be where it was in another mode, but the buffers shall be the same.
      const reuse = { calls: [], buffers: [...byteLengths], outputs: new Map(), assignment: [] };
      plan = planGpuStep(mode, { ...this.#request(), ...this.#shape.capacity, reuse });
      await this.#grow(plan);
      this.#largest.set(key, plan);
    }
    return { ...plan, buffers: [...this.#pool.byteLengths] };
  }

  /** Makes the buffers that a plan has behind those of the pool. */
  async #grow({ buffers }: ShaderPlan): Promise<void> {
    const { byteLengths, buffers: numbers } = this.#pool;
    const added = buffers.slice(byteLengths.length);
    numbers.push(...await this.#gpu.createBuffers(added));
    byteLengths.push(...added);
  }

  #request() {
    const { layout, rule, groups } = this.#shape;
    // What examples are is known to the model alone, and plans have none.
    const options = this.#options as unknown as TrainerOptions<never>;
    return { options, layout, rule, groups, target: this.#gpu.target, places: this.#places };
  }
}

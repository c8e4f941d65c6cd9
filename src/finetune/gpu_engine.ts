/**
 * Steps on a GPU. Parameters lie there; what lies in the arena is a copy for everybody else: `settle` fetches it, and what was
 * handed out since is sent back before the next program.
 *
 * Steps are queued and not waited for. Loss and norm of each go into a ring on the device, which is read every few steps while
 * the next ones run.
 * @module
 */
import { unpackTiled } from "../graph/layout.ts";
import { initialLossScale, type LossScale } from "../kernels/loss_scale/reference.ts";
import { lossScaleOf, lossScaleWords } from "../kernels/loss_scale/wgsl.ts";
import type { Arena } from "../plan/arena.ts";
import type { BufferCopy, GpuExecutor } from "../webgpu/executor.ts";
import type { FlatArray } from "./gpu_arrays.ts";
import { furnish, type GpuHome, ringLayout, ringSteps } from "./gpu_home.ts";
import { canPrune, pruneOnGpu } from "./gpu_masks.ts";
import { GpuPrograms } from "./gpu_programs.ts";
import { wordsAt } from "./gpu_told.ts";
import type { ParameterMemory } from "./memory.ts";
import type { BatchAnswers, MagnitudeRefresh, StepEngine, StepResult } from "./step_engine.ts";
import { groupScalars, type StepSettings } from "./step_settings.ts";
import type { TrainerNeeds, TrainerOptions, TrainerShape } from "./trainer_needs.ts";

/** Results are read after so long at the latest: for the eye. */
const readingMs = 500;

/** Trains on a GPU, which it owns. */
export class GpuEngine<Example> implements StepEngine<Example> {
  readonly sparseMatrices = 0;
  readonly memory: ParameterMemory;
  readonly #options: TrainerOptions<Example>;
  readonly #shape: TrainerShape;
  readonly #arena: Arena;
  readonly #home: GpuHome;
  readonly #programs: GpuPrograms<Example>;
  #lossScale: LossScale | undefined;
  /** Whether the arena has what the device has. */
  #isSettled = true;
  /** Whether the arena may have what the device does not have. */
  #isHandedOut = true;
  /** Steps whose results are in the ring. */
  #ringed = 0;
  #lastReading = performance.now();
  #reading: Promise<void> | undefined;
  #results: StepResult[] = [];

  private constructor(
    options: TrainerOptions<Example>,
    shape: TrainerShape,
    { arena, memory }: { readonly arena: Arena; readonly memory: ParameterMemory },
    home: GpuHome,
  ) {
    this.#options = options;
    this.#shape = shape;
    this.#arena = arena;
    this.memory = memory;
    this.#home = home;
    this.#lossScale = home.places.lossScale === undefined ? undefined : initialLossScale;
    this.#programs = new GpuPrograms(options, shape, home.gpu, home.places);
  }

  /** Takes room on the device for the largest batch. The parameters that lie at `memory` are what is trained. */
  static async create<Example>(
    options: TrainerOptions<Example>,
    shape: TrainerShape,
    host: { readonly arena: Arena; readonly memory: ParameterMemory },
    gpu: GpuExecutor,
  ): Promise<GpuEngine<Example>> {
    const engine = new GpuEngine(options, shape, host, await furnish(options, shape, gpu));
    await engine.#programs.reserve([options.accumulates ? "accumulate" : "train", "evaluate"]);
    return engine;
  }

  /** Bytes that the device holds for it. */
  get deviceNeeds(): Pick<TrainerNeeds, "parameterBytes" | "activationBytes"> {
    const { parameterBytes } = this.#home;
    return { parameterBytes, activationBytes: this.#programs.byteLength };
  }

  get isSettled(): boolean {
    return this.#isSettled;
  }

  get lossScale(): LossScale | undefined {
    return this.#lossScale;
  }

  restoreLossScale(scale: LossScale): void {
    const { gpu, places: { lossScale } } = this.#home;
    if (lossScale === undefined) return;
    gpu.write(lossScale, 0, lossScaleWords(scale));
    this.#lossScale = scale;
  }

  handedOut(): void {
    this.#isHandedOut = true;
  }

  maskChanged(): void {
    this.#isHandedOut = true;
  }

  async pruneByMagnitude(refresh: MagnitudeRefresh): Promise<boolean> {
    const { layout } = this.#shape;
    if (!canPrune(refresh, layout, this.#home)) return false;
    this.#send();
    this.#isSettled = false;
    const words = await pruneOnGpu(refresh, layout, this.#home);
    new Uint32Array(this.#arena.memory.buffer, this.memory.mask, words.length).set(words);
    return true;
  }

  movementChanged(): void {
    throw new Error("Cannot prune by movement on a GPU");
  }

  /** Queues the step. Waits only where the device is far behind. */
  async advance(
    batches: readonly (readonly Example[])[],
    step: number,
    settings: StepSettings,
  ): Promise<readonly StepResult[]> {
    this.#send();
    const { rule, groups } = this.#shape;
    const scalars = groupScalars(rule, groups, step, settings);
    if (this.#options.accumulates) await this.#accumulate(batches, step, scalars);
    else {
      const told = { scalars, draw: { step, part: 0 } };
      await this.#programs.run("train", batches[0], told, this.#ringCopies(this.#home.places.loss));
    }
    this.#isSettled = false;
    this.#ringed++;
    const isDue = performance.now() - this.#lastReading > readingMs && !this.#reading;
    if (this.#ringed === ringSteps || isDue) await this.#readRing();
    return this.#taken();
  }

  async drain(): Promise<readonly StepResult[]> {
    if (this.#ringed > 0) await this.#readRing();
    await this.#reading;
    return this.#taken();
  }

  async gradient(batch: readonly Example[]): Promise<number> {
    await this.settle();
    this.#send();
    await this.#programs.run("gradient", batch);
    await this.#fetch(this.#home.places.arrays.gradients, this.memory.gradients);
    return await this.#readLoss();
  }

  async evaluate(batch: readonly Example[]): Promise<BatchAnswers> {
    const { gpu, places: { loss } } = this.#home;
    this.#send();
    const operands = await this.#programs.run("evaluate", batch);
    const results = [...operands].filter(([, { type }]) => type.layout === "tiled");
    const places = results.map(([, { parts: [place] }]) => place);
    const contents = await gpu.read([wordsAt(loss, 0, 1), ...places]);
    const [own, ...found] = contents.map((bytes) => new Float32Array(bytes));
    const outputs = new Map(results.map(([name, { type: { shape: [rows, stride] } }], index) => {
      const values = unpackTiled(found[index], rows, stride, 1);
      return [name, { values, rows, stride }];
    }));
    return { loss: own[0], outputs };
  }

  async settle(): Promise<void> {
    if (this.#isSettled) return;
    const { gpu, places: { arrays: { weights, states }, lossScale } } = this.#home;
    await this.#fetch(weights, this.memory.weights);
    for (const [index, state] of states.entries()) await this.#fetch(state, this.memory.states[index]);
    if (lossScale !== undefined) {
      const [bytes] = await gpu.read([wordsAt(lossScale, 0, 2)]);
      this.#lossScale = lossScaleOf(new Uint32Array(bytes));
    }
    this.#isSettled = true;
  }

  dispose(): Promise<void> {
    return this.#home.gpu.dispose();
  }

  /** Sums up the gradients of batches, each with its share of the sequences, and updates. */
  async #accumulate(
    batches: readonly (readonly Example[])[],
    step: number,
    scalars: readonly Float32Array[],
  ): Promise<void> {
    const total = batches.reduce((sum, { length }) => sum + length, 0);
    for (const [part, batch] of batches.entries()) {
      const told = { share: batch.length / total, draw: { step, part } };
      await this.#programs.run(part === 0 ? "begin" : "accumulate", batch, told);
    }
    await this.#programs.update({ scalars }, this.#ringCopies(this.#home.places.lossSum));
  }

  /** Puts what is told of the step into the ring. */
  #ringCopies(loss: number): BufferCopy[] {
    const { ring, places: { norm, lossScale } } = this.#home;
    const begin = this.#ringed * ringLayout.stepBytes;
    const copy = (from: number, place: number): BufferCopy => ({
      from: wordsAt(from, 0, 1),
      to: wordsAt(ring, begin + place, 1),
    });
    return [
      copy(loss, ringLayout.loss),
      copy(norm, ringLayout.norm),
      ...(lossScale === undefined ? [] : [copy(lossScale, ringLayout.lossScale)]),
    ];
  }

  /** Reads the ring as it is now, without waiting: later steps write it only after that. */
  async #readRing(): Promise<void> {
    await this.#reading;
    const { gpu, ring } = this.#home;
    const steps = this.#ringed;
    this.#ringed = 0;
    const reading = gpu.read([{ buffer: ring, byteOffset: 0, byteLength: steps * ringLayout.stepBytes }])
      .then(([bytes]) => {
        for (let step = 0; step < steps; step++) {
          const at = (place: number) => new Float32Array(bytes, step * ringLayout.stepBytes + place, 1)[0];
          this.#results.push({
            loss: at(ringLayout.loss),
            gradientNorm: at(ringLayout.norm),
            ...(this.#lossScale && { lossScale: at(ringLayout.lossScale) }),
          });
        }
        this.#reading = undefined;
        this.#lastReading = performance.now();
      });
    // Whoever waits for it is told; until then it is nobody's.
    reading.catch(() => {});
    this.#reading = reading;
  }

  #taken(): readonly StepResult[] {
    const results = this.#results;
    this.#results = [];
    return results;
  }

  /** Sends what may have changed in the arena. */
  #send(): void {
    if (!this.#isHandedOut) return;
    const { gpu, places: { arrays } } = this.#home;
    const { weights, states, mask } = this.memory;
    const send = (array: FlatArray, address: number) =>
      arrays.segments.forEach(({ begin, end }, index) =>
        gpu.write(array[index], 0, this.#arena.float32(address + 4 * begin, end - begin))
      );
    send(arrays.weights, weights);
    arrays.states.forEach((state, index) => send(state, states[index]));
    gpu.write(arrays.mask, 0, this.#arena.int32(mask, this.#shape.layout.prunableLength / 32));
    this.#isHandedOut = false;
  }

  /** Fetches an array into the arena. */
  async #fetch(array: FlatArray, address: number): Promise<void> {
    const { gpu, places: { arrays } } = this.#home;
    for (const [index, { begin, end }] of arrays.segments.entries()) {
      const [bytes] = await gpu.read([wordsAt(array[index], 0, end - begin)]);
      this.#arena.float32(address + 4 * begin, end - begin).set(new Float32Array(bytes));
    }
  }

  async #readLoss(): Promise<number> {
    const [bytes] = await this.#home.gpu.read([wordsAt(this.#home.places.loss, 0, 1)]);
    return new Float32Array(bytes)[0];
  }
}

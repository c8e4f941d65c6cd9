/**
 * The training engine: parameters, gradients and optimiser state in one arena, and a plan per batch size in tiles.
 *
 * It knows steps and evaluations, not epochs, files or schedules; `loop.ts` is what goes around it.
 *
 * Between steps the parameters may be in a form that only kernels read: pruned matrices compact (`compact.ts`), rows of
 * the lookup table behind (`lazy_table.ts`). `settle` brings them into the form that everybody else knows.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { availableMemoryBytes, formatBytes } from "../core/memory.ts";
import { randomKey } from "../core/random.ts";
import { unpackTiled } from "../graph/layout.ts";
import type { Operand, Target } from "../graph/operation.ts";
import { updateRule } from "../kernels/optimizer/optimizers.ts";
import type { GroupStep, OptimizerSettings, UpdateRule } from "../kernels/optimizer/rule.ts";
import type { Machine } from "../machines/machine.ts";
import { Arena, ArenaSize, Region } from "../plan/arena.ts";
import { type Executor, type ExecutorFactory, prepare, type Task } from "../plan/executor.ts";
import { alignUp } from "../plan/memory.ts";
import { type Plan, planBytes, usualTile } from "../plan/plan.ts";
import { type Program, programBytes } from "../plan/program.ts";
import { zeroPruned } from "../pruning/method.ts";
import type { Pattern } from "../pruning/pattern.ts";
import { CompactMatrices } from "./compact.ts";
import type { MatrixPlace } from "./compact_task.ts";
import { type GroupOptions, type ParameterGroup, parameterGroups } from "./groups.ts";
import { LazyTableSteps } from "./lazy_table.ts";
import { type BatchCapacity, placeTrainingMemory, type TrainingMemory } from "./memory.ts";
import { MovementPart } from "./movement_part.ts";
import { type ParameterLayout, parameterLayoutOf, type ParameterSlot } from "./parameters.ts";
import { planStep, planUpdate, type StepMode, type StepParts } from "./step_plan.ts";
import type { InputViews, TrainingModel } from "./training_model.ts";

/** What a trainer is made for. */
export interface TrainerOptions<Example> {
  readonly model: TrainingModel<Example>;
  readonly machine: Machine;
  readonly workers: number;
  readonly createExecutor: ExecutorFactory;
  /** Most sequences in a batch. */
  readonly maximumSequences: number;
  /** Most columns (tokens) in a batch, all sequences together. */
  readonly maximumTokens: number;
  readonly seed: number;
  readonly optimizer: OptimizerSettings;
  /** Largest global gradient norm; 0 leaves gradients as they are. */
  readonly maximumNorm: number;
  /** How parameters are grouped; default: those that decay and those that do not. */
  readonly groups?: GroupOptions;
  /** Whether gradients of several batches make a step; default false. */
  readonly accumulates?: boolean;
  /** What masks prune together; default `unstructured`. */
  readonly pattern?: Pattern;
  /** What trains the scores of movement pruning; absent: there is none. */
  readonly scoreOptimizer?: OptimizerSettings;
  /** Whether pruned matrices train with sparse kernels once those are faster; default true. */
  readonly sparse?: boolean;
  /** Whether layers run again in the backward pass instead of being kept: less memory for about a tenth more time. */
  readonly checkpoints?: boolean;
}

/** What a step is told. */
export interface StepSettings extends GroupStep {
  /** By group of `Trainer.groups`: factors on rate and decay. Absent: 1. */
  readonly factors?: readonly GroupFactors[];
}

/** Factors on what a step is told, for one group. */
export interface GroupFactors {
  readonly learningRate: number;
  readonly weightDecay: number;
}

/** What one optimiser step did. */
export interface StepResult {
  /** Mean over the batch. */
  readonly loss: number;
  /** Global norm of the gradients before clipping. Not finite: the step changed nothing. */
  readonly gradientNorm: number;
}

/** Loss and results of one evaluation batch. */
export interface BatchAnswers {
  /** Mean over the batch. */
  readonly loss: number;
  /** The results that the model names, by name. */
  readonly outputs: ReadonlyMap<string, BatchOutput>;
}

/** A result of a batch: a matrix, row-major. */
export interface BatchOutput {
  /** [rows, stride] */
  readonly values: Float32Array;
  readonly rows: number;
  /** Columns; those beyond the batch hold nothing of interest. */
  readonly stride: number;
}

interface PreparedPlan {
  readonly program: Program;
  readonly outputs: ReadonlyMap<string, Operand>;
}

/** Programs that fit in the arena at a time, of the largest batch; smaller ones take less. */
const reservedPrograms = 24;

/** A model being trained. Make it with `Trainer.create`; end it with `dispose`. */
export class Trainer<Example> {
  readonly model: TrainingModel<Example>;
  readonly layout: ParameterLayout;
  /** Groups of parameters that are updated alike. */
  readonly groups: readonly ParameterGroup[];
  /** The optimiser. */
  readonly rule: UpdateRule;
  /** Memory the training takes, for reports. */
  readonly needs: TrainerNeeds;
  readonly #options: TrainerOptions<Example>;
  readonly #executor: Executor;
  readonly #target: Target;
  readonly #memory: TrainingMemory;
  readonly #parts: StepParts;
  readonly #activations: number;
  /** Programs lie here; they are made when first needed, and again when there was no room for all. */
  readonly #programRegion: Region;
  readonly #programs = new Map<string, PreparedPlan>();

  private constructor(options: TrainerOptions<Example>, executor: Executor, needs: TrainerNeeds) {
    const { arena } = executor;
    this.#options = options;
    this.model = options.model;
    this.layout = needs.layout;
    this.groups = needs.groups;
    this.rule = needs.rule;
    this.#executor = executor;
    this.needs = needs;
    this.#target = targetOf(options);
    this.#memory = placeMemory(options, needs, arena);
    this.#parts = partsOf(options, needs, this.#memory, arena);
    this.#activations = arena.allocate(needs.activationBytes, "activations");
    this.#programRegion = new Region(
      arena.allocate(needs.programsBytes, "programs"),
      needs.programsBytes,
    );
    this.#parts.lazy?.attach(arena);
    this.#parts.movement?.attach(arena);
    this.mask.fill(0xffffffff);
  }

  /** Sizes the arena for the largest batch, and starts the workers. Throws `InputError` when it cannot fit. */
  static async create<Example>(options: TrainerOptions<Example>): Promise<Trainer<Example>> {
    const needs = trainerNeeds(options);
    const executor = await options.createExecutor({
      machine: options.machine,
      threads: options.workers,
      arena: new Arena(needs.arenaBytes),
    });
    try {
      return new Trainer(options, executor, needs);
    } catch (error) {
      await executor.dispose();
      throw error;
    }
  }

  /** All weights, in the order of `layout`. A live view of the arena, to be used while settled. */
  get weights(): Float32Array {
    return this.#flat("weights", this.#memory.weights);
  }

  /** The optimiser's arrays by name, each in the order of `layout`. Live views, to be used while settled. */
  get states(): ReadonlyMap<string, Float32Array> {
    const addresses = this.#memory.states;
    return new Map(this.rule.states.map((name, index) => [name, this.#flat(name, addresses[index])]));
  }

  /**
   * Gradients of the last step. A live view. After `gradient` they are those of all weights; after a step those of a
   * lazily updated table are of the batch's rows alone, and those of compact matrices in packed order.
   */
  get gradients(): Float32Array {
    return this.#executor.arena.float32(this.#memory.gradients, this.layout.length);
  }

  /**
   * The bits of the prunable range: bit i of word j keeps weight 32j + i. A live view, to be used while settled;
   * `applyMask` must follow a change.
   */
  get mask(): Uint32Array {
    this.#checkSettled("mask");
    const { buffer } = this.#executor.arena.memory;
    return new Uint32Array(buffer, this.#memory.mask, this.layout.prunableLength / 32);
  }

  /** A live view of one parameter, to be used while settled. */
  parameter(slot: ParameterSlot): Float32Array {
    return this.weights.subarray(slot.offset, slot.offset + slot.length);
  }

  /** Whether weights and states are as `layout` says: not after a step that had pruned matrices or lazy rows. */
  get isSettled(): boolean {
    const { compact, lazy } = this.#parts;
    return compact.compacted.size === 0 && (lazy?.history.length ?? 0) === 0;
  }

  /** Matrices that the last step ran with sparse kernels. 0 while settled. */
  get sparseMatrices(): number {
    return this.#parts.compact.compacted.size;
  }

  /** Brings weights and states into the order of `layout`, until the next step or evaluation. Changes no number. */
  async settle(): Promise<void> {
    await this.#bringUpToDate();
    await this.#parts.compact.expand(this.#executor);
  }

  /** Movement pruning; undefined in a trainer that was made without a `scoreOptimizer`. */
  get movement(): MovementPart | undefined {
    return this.#parts.movement;
  }

  /**
   * Begins to train scores of matrices by weight name, or goes on after so many steps: see `MovementPart.begin`. Matrices run
   * dense until the end. `isSoft`: under the penalty that each step is told.
   */
  async beginMovement(names: readonly string[], isSoft: boolean, steps = 0): Promise<void> {
    if (!this.movement) {
      throw new Error("Cannot prune by movement: the trainer was made without a scoreOptimizer");
    }
    await this.settle();
    this.movement.begin({ names, isSoft, steps });
    this.#forgetPrograms();
  }

  /** Ends training scores: the mask stays as it is, and what it prunes is lost. */
  async endMovement(): Promise<void> {
    await this.settle();
    this.movement?.end();
    this.#forgetPrograms();
  }

  /** Fills parameters with fresh random weights; all of them, or those named. */
  initialise(names?: ReadonlySet<string>): void {
    for (const slot of this.layout.slots) {
      if (names && !names.has(slot.name)) continue;
      this.model.initialise(slot, this.parameter(slot), this.#options.seed);
    }
  }

  /** Zeroes weights and states wherever the mask has a 0. To be called when the mask was changed, while settled. */
  applyMask(): void {
    const prunable = (array: Float32Array) => array.subarray(0, this.layout.prunableLength);
    zeroPruned(this.mask, [this.weights, ...this.states.values()].map(prunable));
    this.#parts.compact.maskChanged();
  }

  /**
   * Runs a task for each prunable matrix, or those named, spread over the workers; it may change the matrix's mask, weights
   * and states. Settles first.
   */
  async reprune<T>(
    task: Task<T, void>,
    request: (name: string, place: MatrixPlace) => T,
    names?: ReadonlySet<string>,
  ): Promise<void> {
    await this.settle();
    const { compact } = this.#parts;
    const places = [...compact.places].filter(([name]) => !names || names.has(name));
    await this.#executor.perform(task, places.map(([name, place]) => request(name, place)));
    compact.maskChanged();
  }

  /**
   * Runs a task on the workers, once for each argument; gives the results in order. Settles first. What the task writes
   * must be none of the weights that masks zero.
   */
  async perform<A, R>(task: Task<A, R>, request: (memory: TrainingMemory) => readonly A[]): Promise<R[]> {
    await this.settle();
    return await this.#executor.perform(task, request(this.#memory));
  }

  /**
   * One step: forward, backward, clip, update, mask. `step` counts from 1 and names the dropout masks. Of several
   * batches the gradients are averaged over all their sequences; the trainer must have been made for that.
   */
  async step(
    batches: readonly (readonly Example[])[],
    step: number,
    settings: StepSettings,
  ): Promise<StepResult> {
    const { arena } = this.#executor;
    const { lazy } = this.#parts;
    if (lazy?.history.isFull) await this.#bringUpToDate();
    await this.#compact();
    this.#writeScalars(step, settings);
    this.movement?.beforeStep();
    const loss = this.#options.accumulates
      ? await this.#accumulate(batches, step)
      : await this.#run("train", batches[0], { step, part: 0 });
    const [gradientNorm, clip] = arena.float32(this.#memory.norm, 2);
    lazy?.history.end(clip);
    return { loss, gradientNorm };
  }

  /**
   * Loss and gradient of a batch without dropout, changing no weight: `gradients` then holds them, of all weights, pruned
   * ones too. Settles first.
   */
  async gradient(batch: readonly Example[]): Promise<number> {
    await this.settle();
    return await this.#run("gradient", batch);
  }

  /** Loss and results without dropout, changing no number. */
  async evaluate(batch: readonly Example[]): Promise<BatchAnswers> {
    const { arena } = this.#executor;
    await this.#bringUpToDate();
    await this.#compact();
    const { program, outputs } = await this.#load("evaluate", batch);
    await this.#executor.run(program);
    const answers = new Map<string, BatchOutput>();
    for (const [name, { address, type: { shape: [rows, stride], layout } }] of outputs) {
      if (layout !== "tiled") continue;
      const values = unpackTiled(arena.float32(address, rows * stride), rows, stride, this.#target.tile);
      answers.set(name, { values, rows, stride });
    }
    return { loss: this.#lossOf(outputs), outputs: answers };
  }

  /** Stops the workers. */
  dispose(): Promise<void> {
    return this.#executor.dispose();
  }

  #flat(name: string, address: number): Float32Array {
    this.#checkSettled(name);
    return this.#executor.arena.float32(address, this.layout.length);
  }

  #checkSettled(what: string): void {
    if (!this.isSettled) throw new Error(`Cannot read the ${what}: settle the trainer first`);
  }

  /** Makes sparse matrices compact, where nobody needs the gradients of what is pruned. */
  async #compact(): Promise<void> {
    if (this.#options.sparse === false || this.movement?.activity) return;
    if (await this.#parts.compact.compact(this.#executor)) this.#forgetPrograms();
  }

  /** Makes rows of the lookup table take the steps that they missed. */
  async #bringUpToDate(): Promise<void> {
    const { lazy } = this.#parts;
    if (!lazy || lazy.history.length === 0) return;
    const { program } = await this.#prepared("flush", () => lazy.flushPlan(this.#target, this.#activations));
    await this.#executor.run(program);
    lazy.history.clear();
  }

  #writeScalars(step: number, { learningRate, weightDecay, momentum, factors }: StepSettings): void {
    const { arena } = this.#executor;
    const { lazy } = this.#parts;
    this.groups.forEach(({ names, decayed, rateFactor }, index) => {
      const factor = factors?.[index] ?? { learningRate: 1, weightDecay: 1 };
      const scalars = this.rule.scalarsOf({
        learningRate: learningRate * rateFactor * factor.learningRate,
        weightDecay: decayed ? weightDecay * factor.weightDecay : 0,
        momentum,
      }, step);
      arena.float32(this.#memory.scalars[index], scalars.length).set(scalars);
      if (lazy && names.has(lazy.name)) lazy.history.begin(scalars);
    });
  }

  /** Sums up the gradients of batches, each with its share of the sequences, and updates. Gives the mean loss. */
  async #accumulate(batches: readonly (readonly Example[])[], step: number): Promise<number> {
    const { arena } = this.#executor;
    const total = batches.reduce((sum, { length }) => sum + length, 0);
    let loss = 0;
    for (const [part, batch] of batches.entries()) {
      const share = batch.length / total;
      arena.float32(this.#memory.batchShare, 1)[0] = share;
      loss += share * await this.#run(part === 0 ? "begin" : "accumulate", batch, { step, part });
    }
    const { program } = await this.#prepared("update", () => planUpdate(this.#planRequest()));
    await this.#executor.run(program);
    return loss;
  }

  /** Runs a batch; `draw` names what is random in it. Gives the loss. */
  async #run(
    mode: StepMode,
    batch: readonly Example[],
    draw?: { readonly step: number; readonly part: number },
  ): Promise<number> {
    const { seed } = this.#options;
    const part = draw?.part ? [draw.part] : [];
    const { program, outputs } = await this.#load(
      mode,
      batch,
      draw && randomKey(seed, "batch", draw.step, ...part),
    );
    if (draw) {
      const key = randomKey(seed, "dropout", draw.step, ...part);
      this.#executor.arena.int32(this.#memory.seed, 2).set([key.low | 0, key.high | 0]);
    }
    await this.#executor.run(program);
    return this.#lossOf(outputs);
  }

  #lossOf(outputs: ReadonlyMap<string, Operand>): number {
    return this.#executor.arena.float32(outputs.get("loss")!.address, 1)[0];
  }

  /** Writes the batch into the arena and gives the program for its size. */
  async #load(
    mode: StepMode,
    batch: readonly Example[],
    key?: ReturnType<typeof randomKey>,
  ): Promise<PreparedPlan> {
    const { model } = this;
    const columns = alignUp(Math.max(model.sizeOf(batch).columns, 1), this.#target.tile);
    const size = { columns, sequences: this.needs.capacity.sequences };
    const prepared = await this.#prepared(
      `${mode} ${columns} ${model.variant ?? ""}`,
      () => planStep(mode, { ...this.#planRequest(), ...size }),
    );
    model.fill(batch, this.#views(size), key, mode === "evaluate" ? "evaluate" : "train");
    if (mode === "train") this.#parts.lazy?.list(this.#executor.arena, columns);
    return prepared;
  }

  #planRequest() {
    return {
      ...planOptions(this.#options, this.needs),
      memory: this.#memory,
      parts: this.#parts,
      activations: this.#activations,
    };
  }

  async #prepared(key: string, makePlan: () => Plan): Promise<PreparedPlan> {
    const known = this.#programs.get(key);
    if (known) return known;
    const plan = makePlan();
    const { activationBytes } = this.needs;
    if (planBytes(plan) > activationBytes) {
      throw new RangeError(
        `Cannot run ${key}: it takes ${planBytes(plan)} bytes of ${activationBytes}`,
      );
    }
    if (!this.#programRegion.fits(programBytes(plan))) this.#forgetPrograms();
    const program = await prepare(this.#executor, plan, this.#programRegion);
    const prepared = { program, outputs: plan.outputs };
    this.#programs.set(key, prepared);
    return prepared;
  }

  #forgetPrograms(): void {
    this.#programs.clear();
    this.#programRegion.clear();
  }

  #views(size: BatchCapacity): InputViews {
    const { arena } = this.#executor;
    return new Map(
      Object.entries(this.model.inputs(size)).map(([name, { dtype, length }]) => {
        const address = this.#memory.inputs.get(name)!;
        return [name, dtype === "i32" ? arena.int32(address, length) : arena.float32(address, length)];
      }),
    );
  }
}

/** What a trainer takes of memory. */
export interface TrainerNeeds extends TrainerShape {
  /** Weights, gradients, states, and what is known of zeros. */
  readonly parameterBytes: number;
  readonly activationBytes: number;
  readonly programsBytes: number;
  /** All together. */
  readonly arenaBytes: number;
}

/** What follows from the options alone. */
interface TrainerShape {
  readonly layout: ParameterLayout;
  readonly capacity: BatchCapacity;
  readonly rule: UpdateRule;
  readonly groups: readonly ParameterGroup[];
}

/**
 * Planning is pure: plans at made-up addresses tell how much memory the largest batch takes. Throws `InputError` when
 * that is more than there can be.
 */
export function trainerNeeds<Example>(options: TrainerOptions<Example>): TrainerNeeds {
  const target = targetOf(options);
  const layout = parameterLayoutOf(options.model);
  const shape: TrainerShape = {
    layout,
    capacity: {
      columns: alignUp(Math.max(1, options.maximumTokens), target.tile),
      sequences: alignUp(options.maximumSequences, target.tile),
    },
    rule: updateRule(options.optimizer),
    groups: parameterGroups(layout, options.groups),
  };
  const size = new ArenaSize();
  const memory = placeMemory(options, shape, size);
  const parts = partsOf(options, shape, memory, size);
  const parameterBytes = size.byteLength;
  checkArenaBytes(parameterBytes, options);
  const request = { ...planOptions(options, shape), ...shape.capacity, memory, parts, activations: 0 };
  const modes = [options.accumulates ? "accumulate" : "train", "gradient", "evaluate"] as const;
  const plans = modes.map((mode) => planStep(mode, request));
  const sparseBytes = options.sparse === false ? 0 : parts.compact.planBytes;
  // Buffers are placed greedily, so that a plan of fewer may take a little more.
  const activationBytes = alignUp(1.02 * Math.max(...plans.map(planBytes)) + sparseBytes);
  // Programs of sparse matrices have more calls than dense ones.
  const programsBytes = reservedPrograms * Math.max(...plans.map((plan) => programBytes(plan)));
  size.allocate(activationBytes, "activations");
  size.allocate(programsBytes, "programs");
  checkArenaBytes(size.byteLength, options);
  return { ...shape, parameterBytes, activationBytes, programsBytes, arenaBytes: size.byteLength };
}

function placeMemory<Example>(
  { model, accumulates = false }: TrainerOptions<Example>,
  { layout, capacity, rule, groups }: TrainerShape,
  allocator: Arena | ArenaSize,
): TrainingMemory {
  return placeTrainingMemory({
    layout,
    capacity,
    rule,
    groups: groups.length,
    inputs: model.inputs(capacity),
    lookup: model.lookup,
    accumulates,
  }, allocator);
}

function partsOf<Example>(
  options: TrainerOptions<Example>,
  { layout, capacity: { columns }, rule, groups }: TrainerShape,
  memory: TrainingMemory,
  allocator: Arena | ArenaSize,
): StepParts {
  const { pattern = "unstructured", machine, model: { lookup }, accumulates, scoreOptimizer } = options;
  const table = lookup && layout.slot(lookup.table);
  const isLazy = table && rule.lazy && !accumulates && groups.some(({ names }) => names.has(table.name)) &&
    LazyTableSteps.pays(table, columns);
  return {
    compact: new CompactMatrices(layout, { pattern, machine, at: memory }, allocator),
    lazy: isLazy ? new LazyTableSteps(table, lookup.ids, rule, memory) : undefined,
    movement: scoreOptimizer && new MovementPart(layout, scoreOptimizer, allocator),
  };
}

/** What all plans of a trainer are told alike. */
function planOptions<Example>(
  options: TrainerOptions<Example>,
  { layout, rule, groups }: TrainerShape,
) {
  const { model, maximumNorm, checkpoints } = options;
  return { model, target: targetOf(options), layout, rule, groups, maximumNorm, checkpoints };
}

/** Kernels take 32-bit addresses, and what the system does not have it would take from the disk, or end the run. */
function checkArenaBytes<Example>(
  bytes: number,
  { maximumTokens, checkpoints }: TrainerOptions<Example>,
): void {
  const available = availableMemoryBytes() ?? Infinity;
  if (bytes <= Math.min(maximumArenaBytes, available)) return;
  const wanted = available < maximumArenaBytes
    ? `${formatBytes(available)} of memory are free`
    : `an arena has at most ${formatBytes(maximumArenaBytes)}`;
  throw new InputError(
    `training needs ${
      formatBytes(bytes)
    } for batches of ${maximumTokens} tokens, and ${wanted}: take a smaller ` +
      `model, lower --batch-size, --tokens-per-batch or --max-length` +
      (checkpoints ? "" : ", or take --gradient-checkpointing"),
  );
}

/** All that 32 bits address, but for the first line of an arena, which stays unused. */
const maximumArenaBytes = 2 ** 32 - 64;

function targetOf<Example>(
  { machine: { lanes, vectorRegisters }, workers }: TrainerOptions<Example>,
): Target {
  return { lanes, vectorRegisters, tile: usualTile(lanes), workers };
}

/**
 * The training engine: parameters, gradients and optimiser state in one arena, and a plan per batch size in tiles.
 *
 * It knows steps and evaluations, not epochs, files or schedules; `mod.ts` is the loop around it.
 * @module
 */
import { bertInputs, buildBert } from "../../models/bert.ts";
import type { BertConfig } from "../../models/config.ts";
import { InputError } from "../core/errors.ts";
import { randomKey } from "../core/random.ts";
import { type BatchViews, type EncodedExample, packBatch } from "../data/batches.ts";
import { differentiate } from "../graph/autodiff.ts";
import { Graph, type Value } from "../graph/graph.ts";
import { unpackTiled } from "../graph/layout.ts";
import type { Operand, Step, Target } from "../graph/operation.ts";
import { adamwScalarCount, adamwScalars, adamwSteps } from "../kernels/adamw/steps.ts";
import { globalNormPartials, globalNormSteps } from "../kernels/global_norm/steps.ts";
import type { Machine } from "../machines/machine.ts";
import { Arena } from "../plan/arena.ts";
import { type Executor, type ExecutorFactory, prepare } from "../plan/executor.ts";
import { alignUp } from "../plan/memory.ts";
import { type Plan, planBytes, planGraph, usualTile } from "../plan/plan.ts";
import { type Program, programBytes } from "../plan/program.ts";
import {
  initialiseParameter,
  layoutParameters,
  type ParameterLayout,
  type ParameterSlot,
} from "./parameters.ts";

/** What a trainer is made for. */
export interface TrainerOptions {
  readonly config: BertConfig;
  readonly machine: Machine;
  readonly workers: number;
  readonly createExecutor: ExecutorFactory;
  /** Most sequences in a batch. */
  readonly maximumSequences: number;
  /** Most tokens in a batch, all sequences together. */
  readonly maximumTokens: number;
  readonly seed: number;
  readonly optimizer: OptimizerOptions;
}

/** AdamW's constants and the clipping threshold; the learning rate comes with each step. */
export interface OptimizerOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** Largest global gradient norm; 0 leaves gradients as they are. */
  readonly maximumNorm: number;
}

/** What one optimiser step did. */
export interface StepResult {
  readonly loss: number;
  /** Global norm of the gradients before clipping. Not finite: the step changed nothing. */
  readonly gradientNorm: number;
}

/** Loss and answers on one evaluation batch. */
export interface BatchAnswers {
  /** Mean cross-entropy over the batch. */
  readonly loss: number;
  /** [labels, sequences] row-major, `stride` columns a row. */
  readonly logits: Float32Array;
  readonly stride: number;
}

type Mode = "train" | "evaluate";

/** A model being trained. Make it with `Trainer.create`; end it with `dispose`. */
export class Trainer {
  readonly layout: ParameterLayout;
  readonly config: BertConfig;
  /** Bytes of the arena, for reports. */
  readonly arenaBytes: number;
  readonly #options: TrainerOptions;
  readonly #executor: Executor;
  readonly #addresses: Addresses;
  readonly #programs = new Map<string, Promise<PreparedPlan>>();

  private constructor(
    options: TrainerOptions,
    executor: Executor,
    layout: ParameterLayout,
    addresses: Addresses,
  ) {
    this.#options = options;
    this.config = options.config;
    this.#executor = executor;
    this.layout = layout;
    this.#addresses = addresses;
    this.arenaBytes = executor.arena.byteLength;
  }

  /** Sizes the arena for the largest batch, and starts the workers. Throws `InputError` when it cannot fit. */
  static async create(options: TrainerOptions): Promise<Trainer> {
    const target = targetOf(options);
    const columns = alignUp(options.maximumTokens, target.tile);
    const layout = parameterLayoutOf(options.config);
    const parameterBytes = addressBytes(layout, columns, sequencesOf(options));
    checkArenaBytes(parameterBytes, options);
    // Planning is pure: a plan at made-up addresses tells how much memory the largest batch takes.
    const dry = planAddresses(layout, columns, sequencesOf(options), { allocate: () => 64 });
    const plan = planStep("train", options, columns, layout, dry);
    const evaluation = planStep("evaluate", options, columns, layout, dry);
    const tiles = columns / target.tile;
    const bytes = parameterBytes +
      Math.max(planBytes(plan), planBytes(evaluation)) +
      tiles * (alignUp(programBytes(plan)) + alignUp(programBytes(evaluation)) + 128) + 2 ** 16;
    checkArenaBytes(bytes, options);
    const executor = await options.createExecutor({
      machine: options.machine,
      threads: options.workers,
      arena: new Arena(bytes),
    });
    const addresses = planAddresses(layout, columns, sequencesOf(options), executor.arena);
    addresses.activations = executor.arena.allocate(
      Math.max(planBytes(plan), planBytes(evaluation)),
      "activations",
    );
    const trainer = new Trainer(options, executor, layout, addresses);
    const prunable = layout.ranges.find((range) => range.prunable);
    if (prunable) trainer.mask.fill(0xffffffff);
    return trainer;
  }

  /** All weights, in the order of `layout`. A live view of the arena. */
  get weights(): Float32Array {
    return this.#executor.arena.float32(this.#addresses.weights, this.layout.length);
  }

  /** AdamW's first moments. A live view. */
  get firstMoment(): Float32Array {
    return this.#executor.arena.float32(this.#addresses.firstMoment, this.layout.length);
  }

  /** AdamW's second moments. A live view. */
  get secondMoment(): Float32Array {
    return this.#executor.arena.float32(this.#addresses.secondMoment, this.layout.length);
  }

  /** Gradients of the last step. A live view. */
  get gradients(): Float32Array {
    return this.#executor.arena.float32(this.#addresses.gradients, this.layout.length);
  }

  /** The bits of the prunable range: bit i of word j keeps weight 32j + i. A live view. */
  get mask(): Uint32Array {
    const words = prunableLength(this.layout) / 32;
    return new Uint32Array(this.#executor.arena.memory.buffer, this.#addresses.mask, words);
  }

  /** A live view of one parameter. */
  parameter(slot: ParameterSlot): Float32Array {
    return this.weights.subarray(slot.offset, slot.offset + slot.length);
  }

  /** Fills parameters with fresh random weights; all of them, or those named. */
  initialise(names?: ReadonlySet<string>): void {
    const { config, seed } = this.#options;
    for (const slot of this.layout.slots) {
      if (names && !names.has(slot.name)) continue;
      const options = { range: config.initializerRange, seed, padTokenId: config.padTokenId };
      initialiseParameter(slot, this.parameter(slot), options);
    }
  }

  /** Zeroes weights and moments wherever the mask has a 0. */
  applyMask(): void {
    const { mask, weights, firstMoment, secondMoment } = this;
    for (let word = 0; word < mask.length; word++) {
      const bits = mask[word];
      if (bits === 0xffffffff) continue;
      for (let bit = 0; bit < 32; bit++) {
        if (bits & (1 << bit)) continue;
        const index = word * 32 + bit;
        weights[index] = 0;
        firstMoment[index] = 0;
        secondMoment[index] = 0;
      }
    }
  }

  /** One step: forward, backward, clip, AdamW, mask. `step` counts from 1 and names the dropout masks. */
  async step(batch: readonly EncodedExample[], step: number, learningRate: number): Promise<StepResult> {
    const { arena } = this.#executor;
    const { seed, optimizer } = this.#options;
    const prepared = await this.#load("train", batch);
    const key = randomKey(seed, "dropout", step);
    arena.int32(this.#addresses.seed, 2).set([key.low | 0, key.high | 0]);
    const { scalars, scalarsWithoutDecay } = this.#addresses;
    const write = (address: number, weightDecay: number) =>
      arena.float32(address, adamwScalarCount)
        .set(adamwScalars({ ...optimizer, learningRate, weightDecay }, step));
    write(scalars, optimizer.weightDecay);
    write(scalarsWithoutDecay, 0);
    await this.#executor.run(prepared.program);
    return {
      loss: arena.float32(prepared.outputs.get("loss")!.address, 1)[0],
      gradientNorm: arena.float32(this.#addresses.norm, 1)[0],
    };
  }

  /** Loss and logits without dropout, changing nothing. */
  async evaluate(batch: readonly EncodedExample[]): Promise<BatchAnswers> {
    const { arena } = this.#executor;
    const prepared = await this.#load("evaluate", batch);
    await this.#executor.run(prepared.program);
    const { address, type } = prepared.outputs.get("logits")!;
    const [labels, stride] = type.shape;
    return {
      loss: arena.float32(prepared.outputs.get("loss")!.address, 1)[0],
      logits: unpackTiled(arena.float32(address, labels * stride), labels, stride, prepared.tile),
      stride,
    };
  }

  /** Stops the workers. */
  dispose(): Promise<void> {
    return this.#executor.dispose();
  }

  /** Writes the batch into the arena and gives the program for its size. */
  async #load(mode: Mode, batch: readonly EncodedExample[]): Promise<PreparedPlan> {
    const tokens = batch.reduce((sum, example) => sum + example.ids.length, 0);
    const target = targetOf(this.#options);
    const columns = alignUp(Math.max(tokens, 1), target.tile);
    const key = `${mode} ${columns}`;
    let prepared = this.#programs.get(key);
    if (!prepared) {
      const plan = planStep(mode, this.#options, columns, this.layout, this.#addresses);
      prepared = prepare(this.#executor, plan).then((program) => ({
        program,
        outputs: plan.outputs,
        tile: target.tile,
      }));
      this.#programs.set(key, prepared);
    }
    packBatch(batch, this.#views(columns));
    return await prepared;
  }

  #views(columns: number): BatchViews {
    const { arena } = this.#executor;
    const sequences = sequencesOf(this.#options);
    const at = this.#addresses;
    return {
      tokenIds: arena.int32(at.tokenIds, columns),
      positionIds: arena.int32(at.positionIds, columns),
      typeIds: arena.int32(at.typeIds, columns),
      offsets: arena.int32(at.offsets, sequences + 1),
      firstTokens: arena.int32(at.firstTokens, sequences),
      labels: arena.int32(at.labels, sequences),
    };
  }
}

interface PreparedPlan {
  readonly program: Program;
  readonly outputs: ReadonlyMap<string, Operand>;
  readonly tile: number;
}

/** Where everything that outlives a step lies. */
interface Addresses {
  weights: number;
  gradients: number;
  firstMoment: number;
  secondMoment: number;
  mask: number;
  scalars: number;
  scalarsWithoutDecay: number;
  norm: number;
  partials: number;
  tokenIds: number;
  positionIds: number;
  typeIds: number;
  offsets: number;
  firstTokens: number;
  labels: number;
  seed: number;
  activations: number;
}

/** The layout of a model's parameters, from its graph. */
export function parameterLayoutOf(config: BertConfig): ParameterLayout {
  const graph = new Graph();
  buildBert(graph, config, { columns: 1, sequences: 1, mode: "infer" });
  return layoutParameters(graph);
}

/** Kernels take 32-bit addresses. */
function checkArenaBytes(bytes: number, { maximumTokens }: TrainerOptions): void {
  if (bytes <= 2 ** 32) return;
  throw new InputError(
    `training needs ${(bytes / 2 ** 30).toFixed(1)} GiB for batches of ${maximumTokens} tokens: ` +
      `wanted at most 4 GiB, so take a smaller model or lower --batch-size or --max-length`,
  );
}

function targetOf(options: TrainerOptions): Target {
  const { lanes, vectorRegisters } = options.machine;
  return { lanes, vectorRegisters, tile: usualTile(lanes), workers: options.workers };
}

function sequencesOf(options: TrainerOptions): number {
  return alignUp(options.maximumSequences, targetOf(options).tile);
}

function prunableLength(layout: ParameterLayout): number {
  const range = layout.ranges.find((candidate) => candidate.prunable);
  return range ? range.end - range.begin : 0;
}

/** Sizes of the long-lived ranges, in the order they are allocated. */
function addressSizes(
  layout: ParameterLayout,
  columns: number,
  sequences: number,
): Record<keyof Addresses, number> {
  const flat = layout.length * 4;
  return {
    weights: flat,
    gradients: flat,
    firstMoment: flat,
    secondMoment: flat,
    mask: prunableLength(layout) / 8,
    scalars: adamwScalarCount * 4,
    scalarsWithoutDecay: adamwScalarCount * 4,
    norm: 8,
    partials: globalNormPartials([{ address: 0, count: layout.length }]) * 4,
    tokenIds: columns * 4,
    positionIds: columns * 4,
    typeIds: columns * 4,
    offsets: (sequences + 1) * 4,
    firstTokens: sequences * 4,
    labels: sequences * 4,
    seed: 8,
    activations: 0, // allocated last, once the plans are known
  };
}

function planAddresses(
  layout: ParameterLayout,
  columns: number,
  sequences: number,
  arena: { allocate(bytes: number, purpose: string): number },
): Addresses {
  const entries = Object.entries(addressSizes(layout, columns, sequences));
  return Object.fromEntries(
    entries.map(([name, bytes]) => [name, arena.allocate(bytes, name)]),
  ) as unknown as Addresses;
}

function addressBytes(layout: ParameterLayout, columns: number, sequences: number): number {
  return Object.values(addressSizes(layout, columns, sequences))
    .reduce((sum, bytes) => sum + alignUp(bytes), 0);
}

/** The plan of a training or evaluation step for a number of columns. */
function planStep(
  mode: Mode,
  options: TrainerOptions,
  columns: number,
  layout: ParameterLayout,
  addresses: Addresses,
): Plan {
  const target = targetOf(options);
  const graph = new Graph();
  const { loss } = buildBert(graph, options.config, { columns, sequences: sequencesOf(options), mode });
  const bindings = new Map<Value, number>();
  for (const [name, value] of graph.inputs) {
    bindings.set(value, addresses[name as keyof typeof bertInputs]);
  }
  const slots = new Map(layout.slots.map((slot) => [slot.name, slot]));
  for (const [name, value] of graph.parameters) {
    bindings.set(value, addresses.weights + slots.get(name)!.offset * 4);
  }
  let epilogue: Step[] = [];
  if (mode === "train") {
    for (const [name, gradient] of differentiate(graph, loss!)) {
      graph.output(`gradient.${name}`, gradient);
      bindings.set(gradient, addresses.gradients + slots.get(name)!.offset * 4);
    }
    epilogue = optimizerSteps(options, layout, addresses);
  }
  return planGraph(graph, { target, bindings, base: addresses.activations, epilogue });
}

/** The global norm, then one fused pass over each range of the flat parameters. */
function optimizerSteps(options: TrainerOptions, layout: ParameterLayout, at: Addresses): Step[] {
  const norm = globalNormSteps({
    gradients: [{ address: at.gradients, count: layout.length }],
    partials: at.partials,
    result: at.norm,
    maximumNorm: options.optimizer.maximumNorm,
    workers: options.workers,
  });
  const updates = adamwSteps({
    ranges: layout.ranges.map(({ begin, end, decay, prunable }) => ({
      weights: at.weights + begin * 4,
      gradients: at.gradients + begin * 4,
      firstMoment: at.firstMoment + begin * 4,
      secondMoment: at.secondMoment + begin * 4,
      mask: prunable ? at.mask : undefined,
      scalars: decay ? at.scalars : at.scalarsWithoutDecay,
      count: end - begin,
    })),
    clip: at.norm + 4,
    workers: options.workers,
  });
  return [...norm, ...updates];
}

/**
 * An inference session: one model in an arena, its zeros left out, and a plan per size of batch.
 *
 * Weights exist once whatever the number of workers. A call with more tokens than `maximumTokens` is cut into runs;
 * concurrent calls queue up.
 * @module
 */
import { bertInputs, buildBert } from "../../models/bert.ts";
import type { BertConfig } from "../../models/config.ts";
import type { EncoderSession, SessionInput } from "./encoder_session.ts";
import type { Model } from "../checkpoint/model_folder.ts";
import { packBatch } from "../data/batches.ts";
import { byteLength, Graph, type Value, type ValueType } from "../graph/graph.ts";
import type { Target } from "../graph/operation.ts";
import { tiledIndex } from "../graph/layout.ts";
import type { Machine } from "../machines/machine.ts";
import { type Allocator, Arena, ArenaSize } from "../plan/arena.ts";
import { checkThreads, type Executor, type ExecutorFactory, prepare } from "../plan/executor.ts";
import { alignUp } from "../plan/memory.ts";
import { type Plan, planBytes, planGraph, usualTile } from "../plan/plan.ts";
import { type Program, programBytes } from "../plan/program.ts";
import { type LayerChoice, type SurveyedWeights, surveyWeights } from "./weights.ts";

/** How to open a session. */
export interface SessionOptions {
  readonly machine: Machine;
  readonly threads: number;
  readonly createExecutor: ExecutorFactory;
  /** Most tokens in one run; default 2048. Longer calls are cut. At least the model's positions. */
  readonly maximumTokens?: number;
  /** Run every layer dense, for comparison. */
  readonly dense?: boolean;
}

/** Most sequences in one run. */
const maximumSequences = 256;

/** Programs kept in the arena. Sizes are rounded (`sizeOfRun`), so that fewer than this many differ. */
const maximumPrograms = 128;

/** A model ready to answer. Make it with `Session.open`; end it with `dispose`. */
export class Session implements EncoderSession {
  readonly config: BertConfig;
  /** How each prunable layer runs, and why. */
  readonly layers: readonly LayerChoice[];
  readonly threads: number;
  readonly isa: string;
  /** Bytes of the arena: weights, activations, programs. */
  readonly arenaBytes: number;
  /** Bytes of the weights as the kernels read them. */
  readonly weightBytes: number;
  readonly #executor: Executor;
  readonly #weights: SurveyedWeights;
  readonly #addresses: SessionAddresses;
  readonly #maximumTokens: number;
  readonly #programs = new Map<string, Promise<ReadyRun>>();
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(
    config: BertConfig,
    options: SessionOptions,
    executor: Executor,
    weights: SurveyedWeights,
    addresses: SessionAddresses,
    maximumTokens: number,
  ) {
    this.config = config;
    this.layers = weights.layers;
    this.threads = options.threads;
    this.isa = options.machine.isa;
    this.arenaBytes = executor.arena.byteLength;
    this.weightBytes = weights.totalBytes;
    this.#executor = executor;
    this.#weights = weights;
    this.#addresses = addresses;
    this.#maximumTokens = maximumTokens;
  }

  /** Loads and packs the weights and starts the workers. */
  static async open(model: Model, options: SessionOptions): Promise<Session> {
    const { config } = model;
    checkThreads(options.threads);
    const maximumTokens = Math.max(options.maximumTokens ?? 2048, config.maximumPositions);
    const weights = await surveyWeights(model, { dense: options.dense ?? false });
    const largest = sizeOfRun(maximumTokens, maximumSequences, options);
    const size = new ArenaSize();
    const plan = planRun(config, weights, largest, makeAddresses(weights, largest, 0, size));
    size.allocate(planBytes(plan), "activations");
    for (let count = 0; count < maximumPrograms; count++) size.allocate(programBytes(plan), "program");

    const arena = new Arena(size.byteLength);
    const addresses = makeAddresses(weights, largest, planBytes(plan), arena);
    const { machine, threads } = options;
    const [started, written] = await Promise.allSettled([
      options.createExecutor({ machine, threads, arena }),
      weights.write(arena, addresses.weights),
    ]);
    if (started.status === "rejected") throw started.reason;
    const executor = started.value;
    if (written.status === "rejected") {
      await executor.dispose();
      throw written.reason;
    }
    return new Session(config, options, executor, weights, addresses, maximumTokens);
  }

  /** Logits of each input, in order: one array of `config.labels.length` numbers a text. */
  logits(inputs: readonly SessionInput[]): Promise<Float32Array[]> {
    const result = this.#queue.then(() => this.#runAll(inputs));
    this.#queue = result.catch(() => {});
    return result;
  }

  /** The plan of a run of that size, for `describePlan`. */
  plan(tokens: number, sequences: number): Plan {
    const size = sizeOfRun(tokens, sequences, { machine: this.#executor.machine, threads: this.threads });
    return planRun(this.config, this.#weights, size, this.#addresses);
  }

  /** Ends the workers and frees the arena. */
  async dispose(): Promise<void> {
    await this.#queue;
    await this.#executor.dispose();
  }

  async #runAll(inputs: readonly SessionInput[]): Promise<Float32Array[]> {
    const results: Float32Array[] = [];
    let begin = 0;
    while (begin < inputs.length) {
      let tokens = 0;
      let end = begin;
      while (end < inputs.length && end - begin < maximumSequences) {
        const length = inputs[end].ids.length;
        if (end > begin && tokens + length > this.#maximumTokens) break;
        tokens += length;
        end++;
      }
      results.push(...await this.#run(inputs.slice(begin, end), tokens));
      begin = end;
    }
    return results;
  }

  async #run(inputs: readonly SessionInput[], tokens: number): Promise<Float32Array[]> {
    const { arena, machine } = this.#executor;
    const size = sizeOfRun(tokens, inputs.length, { machine, threads: this.threads });
    const key = `${size.columns} ${size.sequences} ${size.target.tile}`;
    let ready = this.#programs.get(key);
    if (!ready) {
      const plan = planRun(this.config, this.#weights, size, this.#addresses);
      const logits = plan.outputs.get("logits")!.address;
      ready = prepare(this.#executor, plan).then((program) => ({ program, logits }));
      this.#programs.set(key, ready);
    }
    const { program, logits } = await ready;
    const at = this.#addresses;
    packBatch(inputs.map(({ ids, typeIds }) => ({ ids, typeIds, label: -1 })), {
      tokenIds: arena.int32(at.inputs.tokenIds, size.columns),
      positionIds: arena.int32(at.inputs.positionIds, size.columns),
      typeIds: arena.int32(at.inputs.typeIds, size.columns),
      offsets: arena.int32(at.inputs.offsets, size.sequences + 1),
      firstTokens: arena.int32(at.inputs.firstTokens, size.sequences),
      labels: arena.int32(at.inputs.labels, size.sequences),
    });
    await this.#executor.run(program);
    const classes = this.config.labels.length;
    const { tile } = size.target;
    const tiled = arena.float32(logits, classes * size.sequences);
    return inputs.map((_, column) =>
      Float32Array.from({ length: classes }, (_, k) => tiled[tiledIndex(k, column, classes, tile)])
    );
  }
}

interface ReadyRun {
  readonly program: Program;
  /** Address of the tiled [classes, sequences] result. */
  readonly logits: number;
}

interface RunSize {
  readonly columns: number;
  readonly sequences: number;
  readonly target: Target;
}

interface SessionAddresses {
  readonly weights: ReadonlyMap<string, number>;
  readonly inputs: Readonly<Record<keyof typeof bertInputs, number>>;
  readonly activations: number;
}

/** Capacity for that many tokens and sequences, rounded so that there are few different plans. */
function sizeOfRun(
  tokens: number,
  sequences: number,
  { machine, threads }: { machine: Machine; threads: number },
): RunSize {
  const { lanes, vectorRegisters } = machine;
  // A power of two, so that sparse kernels turn an input's number into an address with a shift.
  const tile = Math.min(usualTile(lanes), powerOfTwo(alignUp(tokens, lanes)));
  const grain = tokens <= 8 * tile ? tile : 4 * tile;
  const target: Target = { lanes, vectorRegisters, tile, workers: threads };
  const sequenceTiles = powerOfTwo(Math.ceil(sequences / tile));
  return { columns: alignUp(tokens, grain), sequences: sequenceTiles * tile, target };
}

/** The least power of two that is not less. */
function powerOfTwo(value: number): number {
  return 2 ** Math.ceil(Math.log2(value));
}

function inputSizes({ columns, sequences }: RunSize): Record<keyof typeof bertInputs, number> {
  return {
    tokenIds: columns * 4,
    positionIds: columns * 4,
    typeIds: columns * 4,
    offsets: (sequences + 1) * 4,
    firstTokens: sequences * 4,
    labels: sequences * 4,
    seed: 8,
  };
}

function makeAddresses(
  weights: SurveyedWeights,
  largest: RunSize,
  activationBytes: number,
  arena: Allocator,
): SessionAddresses {
  return {
    weights: weights.place(arena),
    inputs: Object.fromEntries(
      Object.entries(inputSizes(largest)).map(([name, bytes]) => [name, arena.allocate(bytes, name)]),
    ) as SessionAddresses["inputs"],
    activations: arena.allocate(activationBytes, "activations"),
  };
}

function planRun(
  config: BertConfig,
  weights: SurveyedWeights,
  { columns, sequences, target }: RunSize,
  addresses: SessionAddresses,
): Plan {
  const graph = new Graph();
  buildBert(graph, config, { columns, sequences, mode: "infer", sparse: weights.structures });
  const bindings = new Map<Value, number>();
  for (const [name, value] of graph.parameters) {
    checkBytes(name, value.type, weights);
    bindings.set(value, addresses.weights.get(name)!);
  }
  for (const [name, value] of graph.inputs) {
    bindings.set(value, addresses.inputs[name as keyof typeof bertInputs]);
  }
  return planGraph(graph, { target, bindings, base: addresses.activations });
}

function checkBytes(name: string, type: ValueType, weights: SurveyedWeights): void {
  const found = weights.byteLengths.get(name);
  if (found !== byteLength(type)) {
    throw new RangeError(`Cannot plan ${name}: it has ${found ?? "no"} bytes, wanted ${byteLength(type)}`);
  }
}

/**
 * An inference session: one model in an arena, its zeros left out, and runners that answer with it.
 *
 * Weights exist once whatever the number of threads. In `latency` mode there is one runner: all threads share each run.
 * In `throughput` mode every thread is a runner of its own: as many runs at once, none of which waits at a barrier.
 * Calls that wait for a runner are put together in one run (`batch_queue.ts`), long ones are cut. Neither changes an
 * answer by a bit: a kernel treats each token alike wherever it lies, and attention each sequence.
 * @module
 */
import type { BertConfig } from "../../models/config.ts";
import type { Model } from "../checkpoint/model_folder.ts";
import { chooseThreads, type ThreadChoice } from "../core/cores.ts";
import { InputError } from "../core/errors.ts";
import type { PackedStructure } from "../kernels/sparse_matmul/pack.ts";
import { assembleOnce, levelOneBytes, type Machine } from "../machines/mod.ts";
import { type Allocator, Arena, ArenaSize } from "../plan/arena.ts";
import { checkThreads, type Executor, type ExecutorFactory } from "../plan/executor.ts";
import { type Plan, usualTile } from "../plan/plan.ts";
import { BatchQueue } from "./batch_queue.ts";
import type { EncoderSession, SessionInput, SessionMode } from "./encoder_session.ts";
import {
  maximumSequences,
  reserveRunner,
  Runner,
  type RunnerModel,
  runnerNeeds,
  sizeOfRun,
} from "./runner.ts";
import type { CacheTarget } from "../kernels/sparse_matmul/blocking.ts";
import { chooseByRule, type KernelChooser } from "./choice.ts";
import { chooseByMeasuring } from "./tuning.ts";
import type { TuningStore } from "./tuning_store.ts";
import { type PackRequest, task as packMatrix } from "./pack_task.ts";
import { type LayerChoice, type SurveyedWeights, surveyWeights } from "./weights.ts";

/** How to open a session. */
export interface SessionOptions {
  readonly machine: Machine;
  /** Default: one for each core this process may use. */
  readonly threads?: number;
  /** What the threads are for; default `latency`. */
  readonly mode?: SessionMode;
  readonly createExecutor: ExecutorFactory;
  /** Most tokens in one run; default 512. Longer calls are cut. At least the model's positions. */
  readonly maximumTokens?: number;
  /** Run every layer dense, for comparison. */
  readonly dense?: boolean;
  /** Where measured choices are kept (`tuning.ts`); absent: the rule chooses and nothing is measured. */
  readonly tuning?: TuningStore;
}

/**
 * Larger runs are slower, their activations fall out of the caches: texts of 128 tokens take 58, 63 and 65 ms each in
 * runs of 512, 1,024 and 2,048 tokens (BERT-base, 90 % zeros, one worker on a busy machine).
 */
const defaultTokens = 512;

const modes: readonly SessionMode[] = ["latency", "throughput"];

/** Settings of a session, all given. */
interface Settings {
  readonly mode: SessionMode;
  readonly threads: ThreadChoice;
  readonly maximumTokens: number;
}

/** A model ready to answer. Make it with `Session.open`; end it with `dispose`. */
export class Session implements EncoderSession {
  readonly config: BertConfig;
  readonly layers: readonly LayerChoice[];
  readonly mode: SessionMode;
  readonly threads: number;
  readonly threadsReason: string;
  readonly pinned: boolean;
  readonly isa: string;
  readonly arenaBytes: number;
  readonly weightBytes: number;
  /** How the sparse layers are packed, by weight name. */
  readonly structures: ReadonlyMap<string, PackedStructure>;
  /** Empty once the session is disposed, which frees the arena. */
  readonly #runners: Runner[];
  readonly #queue: BatchQueue<SessionInput, Float32Array>;

  private constructor(
    { config, weights }: RunnerModel,
    { mode, threads, maximumTokens }: Settings,
    executors: readonly Executor[],
    runners: Runner[],
  ) {
    const [{ machine, arena }] = executors;
    this.config = config;
    this.layers = weights.layers;
    this.mode = mode;
    this.threads = threads.count;
    this.threadsReason = threads.reason;
    this.pinned = executors.every(({ pinned }) => pinned);
    this.isa = machine.isa;
    this.arenaBytes = arena.byteLength;
    this.weightBytes = weights.totalBytes;
    this.structures = weights.structures;
    this.#runners = runners;
    this.#queue = new BatchQueue({
      runners: runners.length,
      maximumCost: maximumTokens,
      maximumItems: maximumSequences,
      cost: ({ ids }) => ids.length,
      run: (index, inputs) => runners[index].run(inputs),
    });
  }

  /** Loads and packs the weights and starts the workers. Throws `InputError` for options that cannot be. */
  static async open(model: Model, options: SessionOptions): Promise<Session> {
    const { config } = model;
    const settings = settingsOf(config, options);
    const { mode, threads: { count } } = settings;
    const [runnerCount, workers] = mode === "latency" ? [1, count] : [count, 1];
    // All runners lie in one arena, so they can link the same code.
    const machine = assembleOnce(options.machine);
    const target: CacheTarget = {
      lanes: machine.lanes,
      tile: usualTile(machine.lanes),
      workers,
      levelOneBytes: levelOneBytes(),
    };
    const { tuning: store, createExecutor } = options;
    const choose: KernelChooser = (matrices) =>
      store
        ? chooseByMeasuring(matrices, { machine, target, createExecutor, store })
        : Promise.resolve(matrices.map(({ profile }) => chooseByRule(profile, target)));
    const weights = await surveyWeights(model, { choose: options.dense ? undefined : choose });

    const size = new ArenaSize();
    const largest = sizeOfRun(settings.maximumTokens, maximumSequences, { machine, workers });
    const needs = runnerNeeds({ config, weights, addresses: weights.place(size) }, largest);
    const placeRunners = (allocator: Allocator) =>
      Array.from({ length: runnerCount }, () => reserveRunner(needs, allocator));
    placeRunners(size).forEach(() => size.allocate(needs.programBytes, "programs"));

    const arena = new Arena(size.byteLength);
    const runnerModel: RunnerModel = { config, weights, addresses: weights.place(arena) };
    const memories = placeRunners(arena);
    const executors = await startAndFill(
      runnerModel,
      arena,
      () => memories.map(() => options.createExecutor({ machine, threads: workers, arena })),
    );
    const runners = memories.map((memory, index) => new Runner(runnerModel, executors[index], memory));
    return new Session(runnerModel, settings, executors, runners);
  }

  async logits(inputs: readonly SessionInput[]): Promise<Float32Array[]> {
    inputs.forEach((input, index) => checkInput(input, index, this.config));
    return await this.#queue.submit(inputs);
  }

  /** The plan of a run of that size, for `describePlan`. */
  plan(tokens: number, sequences: number): Plan {
    return this.#runners[0].plan(tokens, sequences);
  }

  async dispose(): Promise<void> {
    await this.#queue.close();
    await Promise.all(this.#runners.splice(0).map((runner) => runner.dispose()));
  }
}

function settingsOf({ maximumPositions }: BertConfig, options: SessionOptions): Settings {
  const { mode = "latency" } = options;
  if (!modes.includes(mode)) throw new InputError(`mode is ${mode}: wanted latency or throughput`);
  const threads = chooseThreads(options.threads);
  checkThreads(threads.count);
  const { maximumTokens = defaultTokens } = options;
  if (!(Number.isInteger(maximumTokens) && maximumTokens >= 1 && maximumTokens <= 2 ** 20)) {
    throw new InputError(`maximumTokens is ${maximumTokens}: wanted a whole number from 1 to ${2 ** 20}`);
  }
  return {
    mode,
    threads,
    maximumTokens: Math.max(maximumTokens, maximumPositions),
  };
}

/**
 * Starts executors while the weights are read, then packs those of large sparse layers on all of them. When anything
 * fails, whatever was started is stopped.
 */
async function startAndFill(
  { weights, addresses }: { weights: SurveyedWeights; addresses: ReadonlyMap<string, number> },
  arena: Arena,
  start: () => Promise<Executor>[],
): Promise<Executor[]> {
  const [started, [read]] = await Promise.all([
    Promise.allSettled(start()),
    Promise.allSettled([readWeights(weights, addresses, arena)]),
  ]);
  const executors = started.flatMap((each) => each.status === "fulfilled" ? [each.value] : []);
  try {
    for (const each of started) if (each.status === "rejected") throw each.reason;
    if (read.status === "rejected") throw read.reason;
    const requests = read.value;
    await Promise.all(
      executors.map((executor, index) =>
        executor.perform(packMatrix, requests.filter((_, place) => place % executors.length === index))
      ),
    );
    return executors;
  } catch (error) {
    await Promise.all(executors.map((executor) => executor.dispose()));
    throw error;
  }
}

/**
 * Values that are packed here while the workers start; with more, workers share them, the largest matrices first. A
 * thread that has packed nothing yet runs at a fraction of its speed for some 25 ms.
 */
const packedHere = 2_000_000;

/** Reads the weights and gives what is left to pack. */
async function readWeights(
  weights: SurveyedWeights,
  addresses: ReadonlyMap<string, number>,
  arena: Arena,
): Promise<PackRequest[]> {
  const requests = await weights.read(arena, addresses);
  const values = requests.reduce((sum, { nonZeros }) => sum + nonZeros, 0);
  // The largest first, so that no worker begins one when the others are done.
  if (values > packedHere) return requests.sort((a, b) => b.nonZeros - a.nonZeros);
  for (const request of requests) await packMatrix.run(arena.memory, request);
  return [];
}

/** Kernels trust their indices, so that a bad one would read other memory. */
function checkInput({ ids, typeIds }: SessionInput, text: number, config: BertConfig): void {
  const { maximumPositions, vocabularySize, typeVocabularySize } = config;
  const tokens = ids.length;
  if (tokens < 1 || tokens > maximumPositions) {
    throw new InputError(`text ${text} has ${tokens} tokens: wanted 1 to ${maximumPositions}`);
  }
  if (typeIds.length !== tokens) {
    throw new InputError(
      `text ${text} has ${typeIds.length} type ids: wanted one for each of ${tokens} tokens`,
    );
  }
  for (let token = 0; token < tokens; token++) {
    checkId("token", ids[token], vocabularySize, text, token);
    checkId("type", typeIds[token], typeVocabularySize, text, token);
  }
}

function checkId(kind: string, id: number, count: number, text: number, token: number): void {
  if (id >= 0 && id < count) return;
  throw new InputError(`${kind} id ${token} of text ${text} is ${id}: wanted 0 to ${count - 1}`);
}

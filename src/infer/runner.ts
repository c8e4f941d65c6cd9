/**
 * A runner answers one batch at a time: an executor, memory for inputs and activations, and a program per size of batch.
 *
 * A session has one runner that all threads share, or one runner for each thread. Weights are common to all.
 * @module
 */
import { bertInputs, buildBert } from "../../models/bert.ts";
import type { BertConfig } from "../../models/config.ts";
import { sparseInputs } from "../../models/encoder.ts";
import { packBatch } from "../data/batches.ts";
import { byteLength, Graph, type Value } from "../graph/graph.ts";
import { tiledIndex } from "../graph/layout.ts";
import type { Target } from "../graph/operation.ts";
import type { Machine } from "../machines/machine.ts";
import type { Allocator } from "../plan/arena.ts";
import { type Executor, prepare } from "../plan/executor.ts";
import { alignUp } from "../plan/memory.ts";
import { type Plan, planBytes, planGraph, usualTile } from "../plan/plan.ts";
import { type Program, programBytes } from "../plan/program.ts";
import type { SessionInput } from "./encoder_session.ts";
import { TeamChoice } from "./team.ts";
import type { SurveyedWeights } from "./weights.ts";

/** Most sequences in one run. */
export const maximumSequences = 256;

/**
 * Programs kept in the arena. Sizes are rounded (`sizeOfRun`), so that fewer than this many differ: for every doubling
 * of the tokens eight more, each for up to four numbers of sequences, and small ones (`team.ts`) for two teams.
 */
const maximumPrograms = 256;

/** The model as all runners of a session see it. */
export interface RunnerModel {
  readonly config: BertConfig;
  readonly weights: SurveyedWeights;
  /** Addresses of the weights, by checkpoint name. */
  readonly addresses: ReadonlyMap<string, number>;
}

/** Capacity of a run, and for which machine and workers it is planned. */
export interface RunSize {
  readonly columns: number;
  readonly sequences: number;
  readonly target: Target;
}

/** A runner's own memory. */
export interface RunnerMemory {
  readonly inputs: Readonly<Record<keyof typeof bertInputs, number>>;
  readonly activations: number;
}

/** Capacity for that many tokens and sequences, rounded so that there are few different plans. */
export function sizeOfRun(
  tokens: number,
  sequences: number,
  { machine, workers }: { readonly machine: Machine; readonly workers: number },
): RunSize {
  const { lanes, vectorRegisters } = machine;
  // A power of two, so that sparse kernels turn an input's number into an address with a shift.
  const tile = Math.min(usualTile(lanes), powerOfTwo(alignUp(tokens, lanes)));
  // Every tile is computed, so rounding up costs time: at most an eighth of it, or one tile.
  const grain = tile * powerOfTwo(Math.max(1, Math.ceil(tokens / (16 * tile))));
  const target: Target = { lanes, vectorRegisters, tile, workers };
  const sequenceTiles = powerOfTwo(Math.ceil(sequences / tile));
  return { columns: alignUp(tokens, grain), sequences: sequenceTiles * tile, target };
}

/** The least power of two that is not less. */
function powerOfTwo(value: number): number {
  return 2 ** Math.ceil(Math.log2(value));
}

/** What a runner takes of the arena. */
export interface RunnerNeeds {
  readonly largest: RunSize;
  readonly activationBytes: number;
  /** All programs it may make; they are allocated as they are made. */
  readonly programBytes: number;
}

/** The memory of a runner whose runs are up to that large. Planning is pure, so a plan at made-up addresses tells. */
export function runnerNeeds(model: RunnerModel, largest: RunSize): RunnerNeeds {
  const inputs = Object.fromEntries(
    Object.keys(bertInputs).map((name) => [name, 0]),
  ) as RunnerMemory["inputs"];
  const plan = planRun(model, largest, { inputs, activations: 0 });
  return {
    largest,
    activationBytes: planBytes(plan),
    programBytes: maximumPrograms * alignUp(programBytes(plan)),
  };
}

/** Takes memory for inputs and activations. */
export function reserveRunner({ largest, activationBytes }: RunnerNeeds, allocator: Allocator): RunnerMemory {
  const { columns, sequences } = largest;
  const words = (length: number, name: string) => allocator.allocate(length * 4, name);
  return {
    inputs: {
      tokenIds: words(columns, "token ids"),
      positionIds: words(columns, "position ids"),
      typeIds: words(columns, "type ids"),
      offsets: words(sequences + 1, "offsets"),
      firstTokens: words(sequences, "first tokens"),
      labels: words(sequences, "labels"),
      seed: words(2, "seed"),
    },
    activations: allocator.allocate(activationBytes, "activations"),
  };
}

/** A program with the address of its tiled [classes, sequences] result. */
interface ReadyRun {
  readonly program: Program;
  readonly logits: number;
}

/** An executor with what it needs to answer batches of one model. */
export class Runner {
  readonly #model: RunnerModel;
  readonly #executor: Executor;
  readonly #memory: RunnerMemory;
  readonly #programs = new Map<string, Promise<ReadyRun>>();
  readonly #teams = new Map<string, TeamChoice>();
  /** Multiply-adds for each column of tokens. */
  readonly #columnCost: number;

  constructor(model: RunnerModel, executor: Executor, memory: RunnerMemory) {
    this.#model = model;
    this.#executor = executor;
    this.#memory = memory;
    this.#columnCost = model.weights.layers.reduce(
      (sum, { rows, columns, sparsity, kernel }) =>
        sum + rows * columns * (kernel === "dense" ? 1 : 1 - sparsity),
      0,
    );
  }

  /** The plan of a run of that size. */
  plan(tokens: number, sequences: number): Plan {
    return planRun(this.#model, sizeOfRun(tokens, sequences, this.#executor), this.#memory);
  }

  /** Logits of each input. To be called when the call before is answered. */
  async run(inputs: readonly SessionInput[]): Promise<Float32Array[]> {
    const { arena } = this.#executor;
    const tokens = inputs.reduce((sum, { ids }) => sum + ids.length, 0);
    const whole = sizeOfRun(tokens, inputs.length, this.#executor);
    const choice = this.#choiceFor(whole);
    const size = { ...whole, target: { ...whole.target, workers: choice.team } };
    const { program, logits } = await this.#programOf(size);
    const at = this.#memory.inputs;
    packBatch(inputs.map(({ ids, typeIds }) => ({ ids, typeIds, label: -1 })), {
      tokenIds: arena.int32(at.tokenIds, size.columns),
      positionIds: arena.int32(at.positionIds, size.columns),
      typeIds: arena.int32(at.typeIds, size.columns),
      offsets: arena.int32(at.offsets, size.sequences + 1),
      firstTokens: arena.int32(at.firstTokens, size.sequences),
      labels: arena.int32(at.labels, size.sequences),
    });
    const begin = performance.now();
    await this.#executor.run(program);
    choice.note(performance.now() - begin);
    const classes = this.#model.config.labels.length;
    const { tile } = size.target;
    const tiled = arena.float32(logits, classes * size.sequences);
    return inputs.map((_, column) =>
      Float32Array.from({ length: classes }, (_, k) => tiled[tiledIndex(k, column, classes, tile)])
    );
  }

  /** Ends the workers. */
  dispose(): Promise<void> {
    return this.#executor.dispose();
  }

  #choiceFor(size: RunSize): TeamChoice {
    const key = keyOf(size);
    let choice = this.#teams.get(key);
    if (!choice) {
      choice = new TeamChoice(this.#columnCost * size.columns, this.#executor.workers);
      this.#teams.set(key, choice);
    }
    return choice;
  }

  #programOf(size: RunSize): Promise<ReadyRun> {
    const key = `${keyOf(size)} ${size.target.workers}`;
    let ready = this.#programs.get(key);
    if (!ready) {
      const plan = planRun(this.#model, size, this.#memory);
      const logits = plan.outputs.get("logits")!.address;
      ready = prepare(this.#executor, plan).then((program) => ({ program, logits }));
      this.#programs.set(key, ready);
    }
    return ready;
  }
}

function keyOf({ columns, sequences, target }: RunSize): string {
  return `${columns} ${sequences} ${target.tile}`;
}

function planRun(model: RunnerModel, { columns, sequences, target }: RunSize, memory: RunnerMemory): Plan {
  const { config, weights, addresses } = model;
  const graph = new Graph();
  buildBert(graph, config, { columns, sequences, mode: "infer", sparse: weights.structures });
  const bindings = new Map<Value, number>();
  for (const [name, value] of graph.inputs) {
    bindings.set(value, memory.inputs[name as keyof typeof bertInputs]);
  }
  for (const [name, value] of graph.parameters) {
    const address = addresses.get(name)!;
    bindings.set(value, address);
    // The indices of a sparse weight lie behind its values.
    const indices = graph.inputs.get(sparseInputs(name).indices);
    if (indices) bindings.set(indices, address + byteLength(value.type));
    checkBytes(name, byteLength(value.type) + (indices ? byteLength(indices.type) : 0), weights);
  }
  return planGraph(graph, { target, bindings, base: memory.activations });
}

function checkBytes(name: string, wanted: number, weights: SurveyedWeights): void {
  const found = weights.byteLengths.get(name);
  if (found !== wanted) {
    throw new RangeError(`Cannot plan ${name}: it has ${found ?? "no"} bytes, wanted ${wanted}`);
  }
}

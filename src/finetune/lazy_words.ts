/**
 * The word table in training: rows that a batch does not name are left alone until they are read
 * (`src/kernels/adamw/lazy.ts` says why that changes no bit).
 * @module
 */
import type { Value } from "../graph/graph.ts";
import { Graph, indices } from "../graph/graph.ts";
import type { Step, Target } from "../graph/operation.ts";
import {
  AdamwHistory,
  catchUpSteps,
  flushSteps,
  type LazyTable,
  updateRowsSteps,
} from "../kernels/adamw/lazy.ts";
import { adamwScalarCount } from "../kernels/adamw/steps.ts";
import { DistinctRows, distinctRowsGradient } from "../kernels/embedding/distinct_rows.ts";
import type { FlatRange } from "../kernels/global_norm/steps.ts";
import type { Arena } from "../plan/arena.ts";
import { type Plan, planGraph } from "../plan/plan.ts";
import { historyCapacity, type TrainingMemory } from "./memory.ts";
import type { ParameterSlot } from "./parameters.ts";

/**
 * A table with fewer rows for each token of the largest batch is updated whole: most rows would be named. (For MiniLM
 * and batches of 448 tokens lazy steps save 8 % of the time.)
 */
const leastRowsPerToken = 4;

/** Name of the graph's input with the place of each token's row in the list of rows. */
const slotsInput = "wordSlots";

/** What the lazy word table adds to a step's plan. */
export interface LazyPart {
  readonly prologue: readonly Step[];
  readonly update: readonly Step[];
  readonly gradients: FlatRange;
}

/** Lazy steps of the word table of a trainer. */
export class LazyWords {
  readonly #slot: ParameterSlot;
  readonly #memory: TrainingMemory;
  readonly #table: LazyTable;
  readonly #distinct: DistinctRows;
  #history: AdamwHistory | undefined;

  /** Whether lazy steps pay for batches of up to so many columns. */
  static pays(words: ParameterSlot, columns: number): boolean {
    return words.shape[0] >= leastRowsPerToken * columns;
  }

  constructor(words: ParameterSlot, memory: TrainingMemory) {
    const [rows, features] = words.shape;
    const at = (base: number) => base + 4 * words.offset;
    this.#slot = words;
    this.#memory = memory;
    this.#distinct = new DistinctRows(rows);
    this.#table = {
      weights: at(memory.weights),
      firstMoment: at(memory.firstMoment),
      secondMoment: at(memory.secondMoment),
      rows,
      features,
      lastSteps: memory.lastSteps,
      history: memory.history,
      historyLength: memory.historyLength,
    };
  }

  /** The steps taken since all rows were up to date; absent before `attach`. */
  get history(): AdamwHistory {
    if (!this.#history) throw new Error("Cannot take lazy steps: the arena is not attached");
    return this.#history;
  }

  /** Hands over the memory, all zero so far where the table's counts lie. */
  attach(arena: Arena): void {
    const { history, historyLength, lastSteps } = this.#memory;
    arena.int32(lastSteps, this.#table.rows).fill(0);
    arena.int32(historyLength, 1)[0] = 0;
    this.#history = new AdamwHistory({
      history: arena.float32(history, historyCapacity * adamwScalarCount),
      historyLength: arena.int32(historyLength, 1),
    });
  }

  /**
   * Puts the gradient of the batch's rows in the place of the whole table's, at the beginning of its memory, and gives
   * the steps around the graph. `bindings` learns the new values.
   */
  extend(
    graph: Graph,
    gradients: Map<string, Value>,
    bindings: Map<Value, number>,
    { columns, clip, workers }: { readonly columns: number; readonly clip: number; readonly workers: number },
  ): LazyPart {
    const { name, offset } = this.#slot;
    const memory = this.#memory;
    const slots = graph.input(slotsInput, indices(columns));
    bindings.set(slots, memory.wordSlots);
    gradients.set(name, distinctRowsGradient(graph, gradients.get(name)!, slots, columns));
    const address = memory.gradients + 4 * offset;
    const list = { address: memory.wordRows, capacity: columns };
    const request = { table: this.#table, list, workers };
    return {
      prologue: catchUpSteps(request),
      update: updateRowsSteps({ ...request, gradients: address, clip }),
      gradients: { address, count: columns * this.#table.features },
    };
  }

  /** The plan that brings every row up to date; `history.clear()` belongs after it. */
  flushPlan(target: Target, base: number): Plan {
    const epilogue = flushSteps({ table: this.#table, workers: target.workers });
    return planGraph(new Graph(), { target, bindings: new Map(), base, epilogue });
  }

  /** Lists the rows that a batch names; its ids are in the arena already. */
  list(arena: Arena, columns: number): void {
    const { tokenIds, wordRows, wordSlots } = this.#memory;
    const views = [tokenIds, wordRows, wordSlots].map((address) => arena.int32(address, columns));
    this.#distinct.list(views[0], views[1], views[2]);
  }
}

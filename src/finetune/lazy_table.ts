/**
 * The lookup table in training, as a rule the word embeddings: rows that a batch does not name are left alone until they
 * are read (`src/kernels/optimizer/lazy.ts` says why that changes no bit).
 * @module
 */
import type { Value } from "../graph/graph.ts";
import { Graph, indices } from "../graph/graph.ts";
import type { Step, Target } from "../graph/operation.ts";
import { DistinctRows, distinctRowsGradient } from "../kernels/embedding/distinct_rows.ts";
import type { FlatRange } from "../kernels/global_norm/steps.ts";
import {
  catchUpSteps,
  flushSteps,
  type LazyTable,
  StepHistory,
  updateRowsSteps,
} from "../kernels/optimizer/lazy.ts";
import type { UpdateRule } from "../kernels/optimizer/rule.ts";
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
const slotsInput = "lookupSlots";

/** What a lazy table adds to a step's plan. */
export interface LazyPart {
  readonly prologue: readonly Step[];
  readonly update: readonly Step[];
  readonly gradients: FlatRange;
}

/** Lazy steps of a table of a trainer. */
export class LazyTableSteps {
  readonly #slot: ParameterSlot;
  readonly #ids: number;
  readonly #memory: TrainingMemory;
  readonly #table: LazyTable;
  readonly #rule: UpdateRule;
  readonly #distinct: DistinctRows;
  #history: StepHistory | undefined;

  /** Whether lazy steps pay for batches of up to so many columns. */
  static pays(table: ParameterSlot, columns: number): boolean {
    return table.shape[0] >= leastRowsPerToken * columns;
  }

  /** `ids` names the input with the row of each column. */
  constructor(slot: ParameterSlot, ids: string, rule: UpdateRule, memory: TrainingMemory) {
    const [rows, features] = slot.shape;
    const at = (base: number) => base + 4 * slot.offset;
    const { lastSteps, history, historyLength } = memory.lookup;
    this.#slot = slot;
    this.#rule = rule;
    this.#ids = memory.inputs.get(ids)!;
    this.#memory = memory;
    this.#distinct = new DistinctRows(rows);
    this.#table = {
      weights: at(memory.weights),
      firstMoment: at(memory.states[0]),
      secondMoment: at(memory.states[1]),
      rows,
      features,
      lastSteps,
      history,
      historyLength,
    };
  }

  /** Checkpoint name of the table. */
  get name(): string {
    return this.#slot.name;
  }

  /** The steps taken since all rows were up to date; absent before `attach`. */
  get history(): StepHistory {
    if (!this.#history) throw new Error("Cannot take lazy steps: the arena is not attached");
    return this.#history;
  }

  /** Hands over the memory, all zero so far where the table's counts lie. */
  attach(arena: Arena): void {
    const { history, historyLength, lastSteps, rows } = this.#table;
    arena.int32(lastSteps, rows).fill(0);
    arena.int32(historyLength, 1)[0] = 0;
    this.#history = new StepHistory(this.#rule, {
      history: arena.float32(history, historyCapacity * this.#rule.scalars.length),
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
    bindings.set(slots, memory.lookup.slots);
    gradients.set(name, distinctRowsGradient(graph, gradients.get(name)!, slots, columns));
    const address = memory.gradients + 4 * offset;
    const list = { address: memory.lookup.rows, capacity: columns };
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
    const { rows, slots } = this.#memory.lookup;
    const views = [this.#ids, rows, slots].map((address) => arena.int32(address, columns));
    this.#distinct.list(views[0], views[1], views[2]);
  }
}

/**
 * The rows of a table that a batch names, each once: what its gradient and its optimiser step are about.
 * @module
 */
import type { Graph, Value } from "../../graph/graph.ts";
import { embeddingGradient } from "./operation.ts";

/** Lists the distinct rows of batches. One object serves a table for all of a run: it remembers nothing. */
export class DistinctRows {
  /** By row, its place in the list under way, or −1. */
  readonly #slotOf: Int32Array;

  /** For a table of that many rows. */
  constructor(tableRows: number) {
    this.#slotOf = new Int32Array(tableRows).fill(-1);
  }

  /**
   * Writes the distinct ids to `rows`, in the order of their first use and then −1, and to `slots`, which is as long
   * as `ids`, the place of each id in that list, or −1 for −1. Returns how many rows there are.
   *
   * Throws a RangeError for an id that is no row of the table, and when `rows` is too short.
   */
  list(ids: Int32Array, rows: Int32Array, slots: Int32Array): number {
    let count = 0;
    try {
      for (let column = 0; column < ids.length; column++) {
        const id = ids[column];
        if (id === -1) {
          slots[column] = -1;
          continue;
        }
        if (!(id >= 0 && id < this.#slotOf.length)) {
          throw new RangeError(`Cannot list row ${id}: wanted a row below ${this.#slotOf.length}`);
        }
        if (this.#slotOf[id] < 0) {
          if (count === rows.length) throw new RangeError(`Cannot list more than ${rows.length} rows`);
          rows[count] = id;
          this.#slotOf[id] = count++;
        }
        slots[column] = this.#slotOf[id];
      }
    } finally {
      for (let slot = 0; slot < count; slot++) this.#slotOf[rows[slot]] = -1;
    }
    rows.fill(-1, count);
    return count;
  }
}

/**
 * The same gradient of a table, of the rows of a batch only: rows [capacity, features], zero past the list.
 *
 * `gradient` is a table's gradient out of `differentiate`, `slots` the i32 list [columns] that `DistinctRows` writes.
 * Row i is, bit for bit, the row of `gradient` that entry i of the list names. Nothing computes the whole gradient any
 * more unless something else reads it.
 */
export function distinctRowsGradient(graph: Graph, gradient: Value, slots: Value, capacity: number): Value {
  const node = graph.producer(gradient);
  if (node?.operation.name !== embeddingGradient.name) {
    throw new TypeError(
      `Cannot take rows of ${gradient.name}: wanted the gradient of a table that is read by one embedding only`,
    );
  }
  return graph.apply(embeddingGradient, { rows: capacity }, [node.inputs[0], slots])[0];
}

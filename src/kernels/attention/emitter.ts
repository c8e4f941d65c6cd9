/**
 * What the attention kernels are made of: the walk over a worker's (sequence, head) items, and the two products.
 *
 * A head's rows of a column tile are contiguous, so nothing is gathered or transposed: the kernels read q, k and v
 * where they lie. Of the two sides of a product one runs in the vector lanes (a *block* of columns), the other is
 * broadcast (element by element):
 *
 *     products      scores[b][block] = Σ_d  broadcast[d][b] · lanes[d][block]       q·k, dContext·v
 *     combination   out[d][block]    = Σ_b  broadcast[d][b] · weights[b][block]     P·v, dS·k, dS·q, P·dContext
 *
 * A sequence starts and ends anywhere in a tile. It is described by three lists of *spans*, made once per item, each
 * a piece of the sequence that does not cross tiles:
 *
 * - runs: the whole part in a tile;
 * - groups: the few columns that `products` broadcasts together;
 * - blocks: the one or two vectors of columns that run in the lanes.
 *
 * A group or block that would leave its tile is moved back to end with it. It then covers columns of an earlier
 * sequence, and at the end of a sequence it covers columns of a later one. That is harmless: lanes never mix, only
 * the sequence's own lanes are stored and only its own rows of scores are read.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { emitDropoutKey, emitRandomBits, emitUniform24, type KeyVectors } from "../dropout/emit_random.ts";
import type { ArgumentOf } from "../kernel.ts";
import { dropoutKeys } from "./reference.ts";

/** Constants baked into the code. */
export interface AttentionShape {
  /** Heads; together they own all rows of the matrices. */
  readonly heads: number;
  /** Rows of a head, at least 1. */
  readonly headSize: number;
  /** Columns in a tile. */
  readonly tile: number;
  /** Whether probabilities are dropped out. */
  readonly dropout: boolean;
}

/** Arguments of every attention kernel. */
export const itemArguments = {
  /** This worker's share: `items` items, the first is `firstItem`, then every `workers`-th. Item = sequence · heads + head. */
  items: "integer",
  firstItem: "integer",
  workers: "integer",
  columns: "integer",
  /** i32 [sequences + 1] */
  offsets: "pointer",
  /** i32 [2], read when there is dropout. */
  seed: "pointer",
  /** The dropout stream's word and threshold, from `dropout/emit_random.ts`. */
  streamWord: "integer",
  dropThreshold: "float",
  /** 1/(1 − rate) */
  keepScale: "float",
  // Private scratch memory, laid out by `scratchLayout`.
  frame: "pointer",
  staging: "pointer",
  runs: "pointer",
  groups: "pointer",
  blocks: "pointer",
  scores: "pointer",
} as const;

/** Reads the item arguments of a kernel, whatever other arguments it has. */
export interface ItemArgumentReader {
  /** An absolute address. */
  pointer(name: ArgumentOf<typeof itemArguments, "pointer">): Integer;
  /** A signed integer. */
  integer(name: ArgumentOf<typeof itemArguments, "integer">): Integer;
  /** An f32 in every lane. */
  float(name: ArgumentOf<typeof itemArguments, "float">): Vector;
}

/** Register blocking of a machine. */
export interface Blocking {
  /** Vectors in a full block of columns. */
  readonly vectors: number;
  /** Elements broadcast for one load of a block: keys in `products`, features in `combination`. */
  readonly broadcasts: number;
}

/**
 * Accumulators are `vectors` × `broadcasts`. Besides them a product holds a block, one broadcast element, and in the
 * forward pass one factor per vector: 13 of 16 registers, 21 of 32.
 */
export function blocking(
  { lanes, vectorRegisters, tile }: { lanes: number; vectorRegisters: number; tile: number },
): Blocking {
  return {
    vectors: Math.min(2, tile / lanes),
    broadcasts: Math.min(vectorRegisters >= 32 ? 8 : 4, tile),
  };
}

/** Byte offsets of the 32-bit words of the frame: what does not fit into registers. */
const slot = {
  head: 0,
  /** Byte offset of the sequence in the list of offsets. */
  sequence: 4,
  /** First column of the tile the sequence starts in. */
  firstTile: 8,
  /** First column of the sequence. */
  begin: 12,
  /** Columns of the sequence. */
  length: 16,
  /** Byte offset of the head's rows within a tile. */
  headRows: 20,
  /** Byte offset, within a tile, of the rows `combination` is at. */
  featureRows: 24,
  runs: 28,
  groups: 32,
  blocks: 36,
} as const;

/** Bytes of the frame. */
export const frameBytes = 64;

/** Byte offsets of the 32-bit words of a span. */
const span = {
  /** From the start of a matrix to the span's column in the tile's first row. */
  offset: 0,
  /** Column of the span, after it was moved back. */
  column: 4,
  /** Columns it was moved back by. */
  shift: 8,
  /** Columns of the sequence it is for, counted from `column + shift`. */
  count: 12,
} as const;

/** Bytes of a span. */
export const spanBytes = 16;

/** Iterations of a product's feature loop that are written out. */
const unroll = 4;

/** Reads a pointer argument into a fresh register, which the emitter frees. */
export type PointerArgument = () => Integer;

/** Emits the parts of an attention kernel. Holds one integer register, the frame pointer. */
export class AttentionEmitter {
  /** Vectors in a full block, and elements broadcast together. */
  readonly blocking: Blocking;
  readonly #vm: VectorMachine;
  readonly #args: ItemArgumentReader;
  readonly #shape: AttentionShape;
  readonly #frame: Integer;

  /** Starts a kernel of that shape. */
  constructor(vm: VectorMachine, args: ItemArgumentReader, shape: AttentionShape) {
    this.blocking = blocking({ lanes: vm.lanes, vectorRegisters: vm.vectorRegisters, tile: shape.tile });
    this.#vm = vm;
    this.#args = args;
    this.#shape = shape;
    this.#frame = args.pointer("frame");
  }

  // Items, spans and rows -------------------------------------------------------------------------------

  /** The whole kernel: runs `body` for each of the worker's items whose sequence is not empty. */
  forEachItem(body: () => void): void {
    const vm = this.#vm;
    const zero = this.#take(0);
    vm.storeI32(this.#frame, slot.sequence, zero);
    vm.storeI32(this.#frame, slot.firstTile, zero);
    const first = this.#args.integer("firstItem");
    vm.storeI32(this.#frame, slot.head, first);
    vm.free(zero, first);

    const items = this.#args.integer("items");
    vm.repeat(items, () => {
      this.#locateItem();
      const length = this.#read(slot.length);
      vm.when(length, "greater", 0, () => {
        vm.free(length);
        this.#locateFirstTile();
        const { vectors, broadcasts } = this.blocking;
        const blockWidths = Array.from({ length: vectors }, (_, index) => (index + 1) * vm.lanes);
        this.#listSpans("runs", this.#shape.tile, [1]);
        this.#listSpans("groups", broadcasts, [broadcasts]);
        this.#listSpans("blocks", vectors * vm.lanes, blockWidths);
        body();
      });
      this.#increase(slot.head, this.#args.integer("workers"));
    });
    vm.free(items, this.#frame);
  }

  /** Runs `body` for each block of the item, with the number of vectors it has. */
  forEachBlock(body: (block: Integer, vectors: number) => void): void {
    const vm = this.#vm;
    this.#forEachSpan("blocks", (block) => {
      const choose = (vectors: number) => {
        if (vectors === this.blocking.vectors) return body(block, vectors);
        const count = this.#load(block, span.count);
        vm.when(count, "lessOrEqual", vectors * vm.lanes, () => {
          // Compared already: the body may have the register.
          vm.free(count);
          body(block, vectors);
        }, () => choose(vectors + 1));
      };
      choose(1);
    });
  }

  /** Runs `body` for each row of scores, that is for each column of the sequence, in order. */
  forEachRow(body: () => void): void {
    const rows = this.#read(slot.length);
    this.#vm.repeat(rows, body);
    this.#vm.free(rows);
  }

  // The two products ------------------------------------------------------------------------------------

  /** scores[b][block] = Σ_d broadcast[d][b] · lanes[d][block], for every column b of the sequence. */
  products(
    operands: { readonly lanes: PointerArgument; readonly broadcast: PointerArgument },
    scores: PointerArgument,
    block: Integer,
    vectors: number,
  ): void {
    const vm = this.#vm;
    const { broadcasts } = this.blocking;
    const { headSize, tile } = this.#shape;
    this.#forEachSpan("groups", (group) => {
      const lanes = this.#address(operands.lanes, block, slot.headRows);
      const broadcast = this.#address(operands.broadcast, group, slot.headRows);
      const sums = this.#zeros(broadcasts * vectors);
      const features = (count: number) => {
        const columns = this.vectors(vectors);
        const element = vm.vector();
        for (let d = 0; d < count; d++) {
          columns.forEach((column, v) => vm.load(column, lanes, v * vm.lanes * 4));
          for (let b = 0; b < broadcasts; b++) {
            vm.broadcast(element, broadcast, b * 4);
            columns.forEach((column, v) => vm.fma(sums[b * vectors + v], element, column));
          }
          vm.addInteger(lanes, lanes, tile * 4);
          vm.addInteger(broadcast, broadcast, tile * 4);
        }
        vm.free(element, ...columns);
      };
      if (headSize >= unroll) {
        const rounds = this.#take(Math.floor(headSize / unroll));
        vm.repeat(rounds, () => features(unroll));
        vm.free(rounds);
      }
      if (headSize % unroll > 0) features(headSize % unroll);
      vm.free(lanes, broadcast);

      const row = this.rowAddress(scores, group, vectors * vm.lanes * 4);
      sums.forEach((sum, index) => vm.store(row, index * vm.lanes * 4, sum));
      vm.free(row, ...sums);
    });
  }

  /** out[d][block] = factor · Σ_b broadcast[d][b] · weights[b][block] in the sequence's own columns; factor 1 if absent. */
  combination(
    operands: { readonly broadcast: PointerArgument; readonly weights: PointerArgument },
    out: PointerArgument,
    block: Integer,
    vectors: number,
    factor?: readonly Vector[],
  ): void {
    const vm = this.#vm;
    const { headSize, tile } = this.#shape;
    const features = (count: number) => {
      const sums = this.#zeros(count * vectors);
      const weights = operands.weights();
      this.#forEachSpan("runs", (run) => {
        const broadcast = this.#address(operands.broadcast, run, slot.featureRows);
        const rows = this.#load(run, span.count);
        const weight = this.vectors(vectors);
        const element = vm.vector();
        vm.repeat(rows, () => {
          weight.forEach((w, v) => vm.load(w, weights, v * vm.lanes * 4));
          for (let d = 0; d < count; d++) {
            vm.broadcast(element, broadcast, d * tile * 4);
            weight.forEach((w, v) => vm.fma(sums[d * vectors + v], element, w));
          }
          vm.addInteger(broadcast, broadcast, 4);
          vm.addInteger(weights, weights, vectors * vm.lanes * 4);
        });
        vm.free(element, ...weight, rows, broadcast);
      });
      vm.free(weights);
      if (factor) sums.forEach((sum, index) => vm.multiply(sum, sum, factor[index % vectors]));
      const address = this.#address(out, block, slot.featureRows);
      this.#storeBlock(address, tile * 4, sums, block, vectors);
      vm.free(address, ...sums);
      const step = this.#take(count * tile * 4);
      this.#increase(slot.featureRows, step);
    };

    const first = this.#read(slot.headRows);
    vm.storeI32(this.#frame, slot.featureRows, first);
    vm.free(first);
    const { broadcasts } = this.blocking;
    if (headSize >= broadcasts) {
      const rounds = this.#take(Math.floor(headSize / broadcasts));
      vm.repeat(rounds, () => features(broadcasts));
      vm.free(rounds);
    }
    if (headSize % broadcasts > 0) features(headSize % broadcasts);
  }

  // Per-column values -----------------------------------------------------------------------------------

  /** Address, in a [heads, columns] array, of the head's entry for the block's first lane, or for the sequence's first column. */
  statisticAddress(array: PointerArgument, block?: Integer): Integer {
    const vm = this.#vm;
    const address = array();
    const index = this.#read(slot.head);
    const columns = this.#args.integer("columns");
    vm.multiplyInteger(index, index, columns);
    const column = block ? this.#load(block, span.column) : this.#read(slot.begin);
    vm.addInteger(index, index, column);
    vm.shiftLeftInteger(index, index, 2);
    vm.addInteger(address, address, index);
    vm.free(index, columns, column);
    return address;
  }

  /** Stores one value per column of a block into a [heads, columns] array, in the sequence's own columns. */
  storeStatistic(array: PointerArgument, values: readonly Vector[], block: Integer): void {
    const address = this.statisticAddress(array, block);
    this.#storeBlock(address, 0, values, block, values.length);
    this.#vm.free(address);
  }

  /** Address of a span's first row in an array with one row per column of the sequence. */
  rowAddress(array: PointerArgument, spanOf: Integer, rowBytes: number): Integer {
    const vm = this.#vm;
    const address = array();
    const row = this.#load(spanOf, span.column);
    const begin = this.#read(slot.begin);
    vm.subtractInteger(row, row, begin);
    vm.multiplyInteger(row, row, rowBytes);
    vm.addInteger(address, address, row);
    vm.free(row, begin);
    return address;
  }

  /** Address of a block's columns in the head's first row of a matrix. */
  headAddress(matrix: PointerArgument, block: Integer): Integer {
    return this.#address(matrix, block, slot.headRows);
  }

  // Dropout ---------------------------------------------------------------------------------------------

  /** Indices of the dropout bits when the block holds queries and the row is the first key. Add 1 for the next row. */
  queryIndices(block: Integer, vectors: number): Vector[] {
    const vm = this.#vm;
    const { heads } = this.#shape;
    const column = this.#load(block, span.column);
    const head = this.#read(slot.head);
    vm.multiplyInteger(head, head, dropoutKeys);
    const indices = this.#columnNumbers(column, vectors);
    const operand = vm.vector();
    for (const index of indices) {
      vm.constantI32(operand, heads * dropoutKeys);
      vm.multiplyI32(index, index, operand);
      vm.broadcastInteger(operand, head);
      vm.addI32(index, index, operand);
    }
    vm.free(operand, column, head);
    return indices;
  }

  /** The same when the block holds keys and the row is the first query. Add heads · 512 for the next row. */
  keyIndices(block: Integer, vectors: number): Vector[] {
    const vm = this.#vm;
    const { heads } = this.#shape;
    // (begin · heads + head) · 512 + column − begin
    const begin = this.#read(slot.begin);
    const index = vm.integer();
    vm.multiplyInteger(index, begin, heads);
    const head = this.#read(slot.head);
    vm.addInteger(index, index, head);
    vm.multiplyInteger(index, index, dropoutKeys);
    vm.subtractInteger(index, index, begin);
    const column = this.#load(block, span.column);
    vm.addInteger(index, index, column);
    const indices = this.#columnNumbers(index, vectors);
    vm.free(begin, index, head, column);
    return indices;
  }

  /** The step's dropout key for this attention: two registers the caller frees. */
  dropoutKey(): KeyVectors {
    const seed = this.#args.pointer("seed");
    const word = this.#args.integer("streamWord");
    const key = emitDropoutKey(this.#vm, seed, word);
    this.#vm.free(seed, word);
    return key;
  }

  /** d = value where the bits of `index` say keep, else 0. Three temporaries. */
  keep(d: Vector, index: Vector, key: KeyVectors, value: Vector): void {
    const vm = this.#vm;
    const bits = vm.vector();
    emitRandomBits(vm, bits, index, key);
    emitUniform24(vm, bits, bits);
    const zero = vm.vector();
    vm.constantF32(zero, 0);
    const threshold = this.#args.float("dropThreshold");
    vm.selectLess(d, bits, threshold, zero, value);
    vm.free(bits, zero, threshold);
  }

  // Registers -------------------------------------------------------------------------------------------

  /** Takes vector registers. */
  vectors(count: number): Vector[] {
    return Array.from({ length: count }, () => this.#vm.vector());
  }

  #zeros(count: number): Vector[] {
    const zeros = this.vectors(count);
    for (const zero of zeros) this.#vm.constantF32(zero, 0);
    return zeros;
  }

  #take(value: number): Integer {
    const d = this.#vm.integer();
    this.#vm.setInteger(d, value);
    return d;
  }

  #load(base: Integer, offset: number): Integer {
    const d = this.#vm.integer();
    this.#vm.loadI32(d, base, offset);
    return d;
  }

  #read(offset: number): Integer {
    return this.#load(this.#frame, offset);
  }

  /** Adds to a slot; frees the summand. */
  #increase(offset: number, summand: Integer): void {
    const value = this.#read(offset);
    this.#vm.addInteger(value, value, summand);
    this.#vm.storeI32(this.#frame, offset, value);
    this.#vm.free(value, summand);
  }

  /** matrix + span + rows, the rows given by a slot. */
  #address(matrix: PointerArgument, spanOf: Integer, rowsSlot: number): Integer {
    const vm = this.#vm;
    const address = matrix();
    const offset = this.#load(spanOf, span.offset);
    vm.addInteger(address, address, offset);
    vm.loadI32(offset, this.#frame, rowsSlot);
    vm.addInteger(address, address, offset);
    vm.free(offset);
    return address;
  }

  // Details ---------------------------------------------------------------------------------------------

  /** Carries whole sequences out of `head`, which the last item increased by the number of workers. */
  #locateItem(): void {
    const vm = this.#vm;
    const { heads, headSize, tile } = this.#shape;
    const head = this.#read(slot.head);
    const sequence = this.#read(slot.sequence);
    const limit = vm.integer();
    const multiple = vm.integer();
    vm.addInteger(limit, head, 1);
    vm.forRange(multiple, heads, limit, heads, () => {
      vm.subtractInteger(head, head, heads);
      vm.addInteger(sequence, sequence, 4);
    });
    vm.storeI32(this.#frame, slot.head, head);
    vm.storeI32(this.#frame, slot.sequence, sequence);
    vm.multiplyInteger(head, head, headSize * tile * 4);
    vm.storeI32(this.#frame, slot.headRows, head);
    vm.free(limit, multiple, head);

    const offsets = this.#args.pointer("offsets");
    vm.addInteger(offsets, offsets, sequence);
    vm.free(sequence);
    const begin = this.#load(offsets, 0);
    const length = this.#load(offsets, 4);
    vm.subtractInteger(length, length, begin);
    vm.storeI32(this.#frame, slot.begin, begin);
    vm.storeI32(this.#frame, slot.length, length);
    vm.free(offsets, begin, length);
  }

  /** Moves on to the tile the sequence starts in. Sequences come in order, so this never goes back, nor divides. */
  #locateFirstTile(): void {
    const vm = this.#vm;
    const { tile } = this.#shape;
    const firstTile = this.#read(slot.firstTile);
    const limit = this.#read(slot.begin);
    const passed = vm.integer();
    vm.subtractInteger(limit, limit, tile - 1);
    vm.forRange(passed, firstTile, limit, tile, () => vm.addInteger(firstTile, firstTile, tile));
    vm.storeI32(this.#frame, slot.firstTile, firstTile);
    vm.free(firstTile, limit, passed);
  }

  /**
   * Cuts the sequence at the borders of tiles, then every `step` columns, and lists the pieces. A piece is moved
   * back so that the smallest of the widths it fits into ends in the tile; the widest if it fits into none.
   */
  #listSpans(table: SpanTable, step: number, widths: readonly number[]): void {
    const vm = this.#vm;
    const { heads, headSize, tile } = this.#shape;
    const entry = this.#args.pointer(table);
    const tileStart = this.#read(slot.firstTile);
    const end = this.#read(slot.begin);
    const length = this.#read(slot.length);
    vm.addInteger(end, end, length);
    vm.free(length);
    vm.forRange(tileStart, tileStart, end, tile, () => {
      const position = this.#read(slot.begin);
      vm.subtractInteger(position, position, tileStart);
      vm.when(position, "less", 0, () => vm.setInteger(position, 0));
      const to = vm.integer();
      vm.subtractInteger(to, end, tileStart);
      vm.when(to, "greater", tile, () => vm.setInteger(to, tile));
      vm.forRange(position, position, to, step, () => {
        const count = vm.integer();
        vm.subtractInteger(count, to, position);
        vm.when(count, "greater", step, () => vm.setInteger(count, step));
        vm.storeI32(entry, span.count, count);
        const start = this.#take(tile - widths[widths.length - 1]);
        for (const width of widths.slice(0, -1).reverse()) {
          vm.when(count, "lessOrEqual", width, () => vm.setInteger(start, tile - width));
        }
        vm.when(start, "greater", position, () => vm.moveInteger(start, position));
        vm.subtractInteger(count, position, start);
        vm.storeI32(entry, span.shift, count);
        vm.addInteger(count, start, tileStart);
        vm.storeI32(entry, span.column, count);
        vm.multiplyInteger(count, tileStart, heads * headSize);
        vm.addInteger(count, count, start);
        vm.shiftLeftInteger(count, count, 2);
        vm.storeI32(entry, span.offset, count);
        vm.addInteger(entry, entry, spanBytes);
        vm.free(count, start);
      });
      vm.free(to, position);
    });
    vm.free(end, tileStart);
    const start = this.#args.pointer(table);
    vm.subtractInteger(entry, entry, start);
    vm.shiftRightInteger(entry, entry, Math.log2(spanBytes));
    vm.storeI32(this.#frame, slot[table], entry);
    vm.free(entry, start);
  }

  #forEachSpan(table: SpanTable, body: (entry: Integer) => void): void {
    const vm = this.#vm;
    const left = this.#read(slot[table]);
    const entry = this.#args.pointer(table);
    vm.repeat(left, () => {
      body(entry);
      vm.addInteger(entry, entry, spanBytes);
    });
    vm.free(left, entry);
  }

  /** Stores rows of a block in the sequence's own columns only; `address` is that of the block's first lane. */
  #storeBlock(
    address: Integer,
    rowBytes: number,
    values: readonly Vector[],
    block: Integer,
    vectors: number,
  ): void {
    const vm = this.#vm;
    const vectorBytes = vm.lanes * 4;
    const count = this.#load(block, span.count);
    vm.when(count, "equal", vectors * vm.lanes, () => {
      values.forEach((value, index) => {
        vm.store(address, Math.floor(index / vectors) * rowBytes + (index % vectors) * vectorBytes, value);
      });
    }, () => {
      // Through memory, to shift the lanes. All vectors but the last are full, or the block would be a smaller one.
      const staging = this.#args.pointer("staging");
      values.forEach((value, index) => vm.store(staging, index * vectorBytes, value));
      const shift = this.#load(block, span.shift);
      vm.shiftLeftInteger(shift, shift, 2);
      vm.addInteger(staging, staging, shift);
      vm.addInteger(address, address, shift);
      vm.free(shift);
      vm.subtractInteger(count, count, (vectors - 1) * vm.lanes);
      const rows = this.#take(values.length / vectors);
      const moved = vm.vector();
      vm.repeat(rows, () => {
        for (let v = 0; v < vectors; v++) {
          vm.load(moved, staging, v * vectorBytes);
          if (v + 1 < vectors) vm.store(address, v * vectorBytes, moved);
          else vm.storeFirst(address, v * vectorBytes, moved, count);
        }
        vm.addInteger(staging, staging, vectors * vectorBytes);
        vm.addInteger(address, address, rowBytes);
      });
      vm.free(staging, rows, moved);
    });
    vm.free(count);
  }

  /** The numbers first, first + 1, … in the lanes of consecutive vectors. */
  #columnNumbers(first: Integer, vectors: number): Vector[] {
    const vm = this.#vm;
    const numbers = this.vectors(vectors);
    const operand = vm.vector();
    numbers.forEach((number, v) => {
      vm.laneIndex(number);
      vm.broadcastInteger(operand, first);
      vm.addI32(number, number, operand);
      vm.constantI32(operand, v * vm.lanes);
      vm.addI32(number, number, operand);
    });
    vm.free(operand);
    return numbers;
  }
}

type SpanTable = "runs" | "groups" | "blocks";

/**
 * The walk over the chunks of packed weights that both gradient kernels share. `pack.ts` says how chunks are stored.
 * @module
 */
import type { Integer, VectorMachine } from "../../assemblers/vector_machine.ts";
import { chunkKinds, countedTurn, type SparsePattern } from "./pack.ts";

/** What of the packing and of the matrices beside it is baked into the code. */
export interface WalkConstants {
  readonly pattern: SparsePattern;
  /** Output features, N: rows of gradY in memory. */
  readonly rows: number;
  /** Input features, K: rows of x and of its gradient in memory. */
  readonly depth: number;
  readonly panelInputs: number;
  /** Columns of a tile, a power of two. */
  readonly tile: number;
  /** Vectors of a strip, the columns held in registers; divides a tile. */
  readonly vectors: number;
}

/** Registers of a walk. */
export interface WalkPlace {
  /** The row of the panel's first input in x or in its gradient; moved on from panel to panel, and back in the end. */
  readonly inputs: Integer;
  /** The next index; moved on. */
  readonly indices: Integer;
  /** Takes a register with the block's first row of gradY. */
  readonly gradY: () => Integer;
}

/** A chunk as the walk meets it. */
export interface WalkChunk {
  /** Rows of its group that exist. */
  readonly rows: number;
  /** Its first row of gradY. */
  readonly gradRow: Integer;
  /** Emits `body` for its entries, `most` of them at a time or fewer; entry i of those has its index at 2 · i. */
  entries(most: number, body: (count: number) => void): void;
}

/** Emits the walk over all panels of an output block; `body` emits the work on a chunk. */
export function emitWalk(
  vm: VectorMachine,
  constants: WalkConstants,
  { inputs, indices, gradY }: WalkPlace,
  body: (chunk: WalkChunk) => void,
): void {
  const { depth, panelInputs, tile } = constants;
  const panels = Math.ceil(depth / panelInputs);
  const readIndex = (register: Integer) => {
    vm.loadU16(register, indices, 0);
    vm.addInteger(indices, indices, 2);
  };
  const emitEntries = (count: number, most: number, emit: (count: number) => void) => {
    for (let begin = 0; begin < count; begin += most) {
      const part = Math.min(most, count - begin);
      emit(part);
      vm.addInteger(indices, indices, 2 * part);
    }
  };
  const left = vm.integer();
  vm.setInteger(left, panels);
  vm.repeat(left, () => {
    for (const { rows, entries } of chunkKinds(constants)) {
      const chunks = vm.integer();
      readIndex(chunks);
      vm.repeat(chunks, () => {
        const gradRow = rowAddress(vm, indices, 0, gradY(), tile);
        vm.addInteger(indices, indices, 2);
        body({
          rows,
          gradRow,
          entries(most, emit) {
            if (entries !== "counted") return emitEntries(entries, most, emit);
            for (const count of [countedTurn, 1]) {
              const turns = vm.integer();
              readIndex(turns);
              vm.repeat(turns, () => emitEntries(count, most, emit));
              vm.free(turns);
            }
          },
        });
        vm.free(gradRow);
      });
      vm.free(chunks);
    }
    vm.addInteger(inputs, inputs, panelInputs * tile * 4);
  });
  vm.subtractInteger(inputs, inputs, panels * panelInputs * tile * 4);
  vm.free(left);
}

/** base + (the index at indices + offset) rows of a tile, in the register of base. */
export function rowAddress(
  vm: VectorMachine,
  indices: Integer,
  offset: number,
  base: Integer,
  tile: number,
): Integer {
  const distance = vm.integer();
  vm.loadU16(distance, indices, offset);
  vm.shiftLeftInteger(distance, distance, Math.log2(tile * 4));
  vm.addInteger(base, base, distance);
  vm.free(distance);
  return base;
}

/** The part of a kernel's key that names the constants. */
export function walkKey({ pattern, rows, depth, panelInputs, tile, vectors }: WalkConstants): string {
  return `${pattern}_${rows}x${depth}_panel${panelInputs}_tile${tile}_vectors${vectors}`;
}

/** The most vectors, at most `most`, that divide a tile and for which `registers` fit the machine. */
export function chooseVectors(
  { tile, most }: { readonly tile: number; readonly most: number },
  machine: { readonly lanes: number; readonly vectorRegisters: number },
  registers: (vectors: number) => number,
): number {
  const vectorsPerTile = tile / machine.lanes;
  let vectors = Math.min(most, vectorsPerTile);
  while (vectorsPerTile % vectors !== 0 || registers(vectors) > machine.vectorRegisters) vectors--;
  return vectors;
}

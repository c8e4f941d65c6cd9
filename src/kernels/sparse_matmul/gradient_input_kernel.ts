/**
 * The gradient of the activations, Wᵀ·gradY, from the packing of W itself.
 *
 * The forward kernel gathers: a row of y stays in registers while rows of x pass. This one scatters: a row of gradY
 * (four with `4x1`) stays in registers, and each entry adds its products to a row of the gradient in the first-level
 * cache. So neither a packing of Wᵀ nor its values in another order are needed. Blocks do four fmas for a load and a
 * store; single weights do one, and are faster by a packing of Wᵀ (`training_structure.ts`). Two entries at a time,
 * panels of 96 to 384 inputs and other tiles changed nothing there.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import { emitResume, emitStore, takeAccumulators } from "../matmul/block.ts";
import { chooseVectors, emitWalk, rowAddress, type WalkConstants, walkKey } from "./gradient_walk.ts";
import { groupRows } from "./pack.ts";

/** What is in the result before an output block adds to it: nothing yet, to be an addend or zero, or what others left. */
export type GradientStart = "zero" | "addend" | "resume";

/** What is baked into the code. */
export interface SparseInputGradientConstants extends WalkConstants {
  readonly start: GradientStart;
}

const sparseInputGradientArguments = {
  /** First row of the output block, first tile. */
  gradY: "pointer",
  /** First value of the output block. */
  values: "pointer",
  /** First index of the output block. */
  indices: "pointer",
  /** First tile of the addend; unused without one. */
  addend: "pointer",
  /** First tile of the result. */
  gradX: "pointer",
  /** Tiles of columns. */
  tiles: "integer",
} as const;

/** Arguments of the kernel. */
export type SparseInputGradientArguments = typeof sparseInputGradientArguments;

/** The constants for a machine: as many vectors of a tile as its registers hold, at most eight. */
export function sparseInputGradientConstants(
  shape: Omit<SparseInputGradientConstants, "vectors">,
  machine: { readonly lanes: number; readonly vectorRegisters: number },
): SparseInputGradientConstants {
  const height = groupRows(shape.pattern);
  // Rows of gradY, a row of the result, a weight.
  const registers = (vectors: number) => height * vectors + vectors + 1;
  return { ...shape, vectors: chooseVectors({ tile: shape.tile, most: 8 }, machine, registers) };
}

const kernels = new Map<string, Kernel<SparseInputGradientArguments>>();

/**
 * gradX[k, c] (+)= Σ weight[n, k] · gradY[n, c] over the stored weights of an output block, for a range of tiles.
 *
 * Shapes:   gradY tiled [rows, …], gradX and addend tiled [depth, …].
 * Requires: gradX overlaps nothing, except that it may be the addend; the tile is a power of two.
 * Numerics: f32 sums in stored order, one fma each, starting from the addend or zero.
 * Cost:     2 · stored weights · columns operations; a call reads its weights once per strip.
 */
export function sparseInputGradientKernel(
  constants: SparseInputGradientConstants,
): Kernel<SparseInputGradientArguments> {
  const key = `sparse_matmul_input_gradient_f32_${walkKey(constants)}_${constants.start}`;
  let kernel = kernels.get(key);
  if (!kernel) {
    kernel = defineKernel({
      key,
      arguments: sparseInputGradientArguments,
      emit: (vm, args) => emitInputGradient(vm, args, constants),
    });
    kernels.set(key, kernel);
  }
  return kernel;
}

function emitInputGradient(
  vm: VectorMachine,
  args: ArgumentReader<SparseInputGradientArguments>,
  constants: SparseInputGradientConstants,
): void {
  const { rows, depth, tile, vectors, start } = constants;
  const tileBytes = tile * 4;
  const stripBytes = vectors * vm.lanes * 4;
  const gradX = args.pointer("gradX");
  /** Bytes of gradY before the tile and strip. */
  const position = vm.integer();
  vm.setInteger(position, 0);
  const tiles = args.integer("tiles");
  vm.repeat(tiles, () => {
    if (start !== "resume") emitStartTile(vm, args, constants, gradX);
    const strips = vm.integer();
    vm.setInteger(strips, tileBytes / stripBytes);
    vm.repeat(strips, () => {
      emitStrip(vm, args, constants, gradX, position);
      vm.addInteger(gradX, gradX, stripBytes);
      vm.addInteger(position, position, stripBytes);
    });
    vm.free(strips);
    vm.addInteger(gradX, gradX, (depth - 1) * tileBytes);
    vm.addInteger(position, position, (rows - 1) * tileBytes);
  });
  vm.free(gradX, position, tiles);
}

/** A tile of the result = the addend, or zero. */
function emitStartTile(
  vm: VectorMachine,
  args: ArgumentReader<SparseInputGradientArguments>,
  { depth, tile, start }: SparseInputGradientConstants,
  gradX: Integer,
): void {
  const target = vm.integer();
  vm.moveInteger(target, gradX);
  const value = vm.vector();
  let source: Integer | undefined;
  if (start === "addend") {
    source = args.pointer("addend");
    const first = args.pointer("gradX");
    vm.subtractInteger(source, source, first);
    vm.addInteger(source, source, gradX);
    vm.free(first);
  } else {
    vm.constantF32(value, 0);
  }
  const left = vm.integer();
  vm.setInteger(left, depth);
  vm.repeat(left, () => {
    for (let offset = 0; offset < tile * 4; offset += vm.lanes * 4) {
      if (source) vm.load(value, source, offset);
      vm.store(target, offset, value);
    }
    vm.addInteger(target, target, tile * 4);
    if (source) vm.addInteger(source, source, tile * 4);
  });
  vm.free(target, value, left, ...(source ? [source] : []));
}

/** The output block over a strip of columns. */
function emitStrip(
  vm: VectorMachine,
  args: ArgumentReader<SparseInputGradientArguments>,
  constants: SparseInputGradientConstants,
  gradX: Integer,
  position: Integer,
): void {
  const { tile, vectors } = constants;
  const height = groupRows(constants.pattern);
  const vectorBytes = vm.lanes * 4;
  const values = args.pointer("values");
  const indices = args.pointer("indices");
  const gradY = () => {
    const row = args.pointer("gradY");
    vm.addInteger(row, row, position);
    return row;
  };
  emitWalk(vm, constants, { inputs: gradX, indices, gradY }, ({ rows, gradRow, entries }) => {
    const gradients = takeAccumulators(vm, { rows, vectors });
    gradients.forEach((row, r) =>
      row.forEach((vector, v) => vm.load(vector, gradRow, r * tile * 4 + v * vectorBytes))
    );
    // Both pointers move on at every entry, for V8: see `emitProducts`.
    entries(1, () => {
      const y = vm.integer();
      vm.moveInteger(y, gradX);
      rowAddress(vm, indices, 0, y, tile);
      emitEntry(vm, gradients, { y, rowStride: tile * 4 }, values);
      vm.free(y);
      vm.addInteger(values, values, 4 * height);
    });
    vm.free(...gradients.flat());
  });
  vm.free(values, indices);
}

/** A row of the result += Σ_r weight[r] · gradients[r]. */
function emitEntry(
  vm: VectorMachine,
  gradients: readonly (readonly Vector[])[],
  target: { readonly y: Integer; readonly rowStride: number },
  values: Integer,
): void {
  const sums = takeAccumulators(vm, { rows: 1, vectors: gradients[0].length });
  emitResume(vm, sums, target);
  const weight = vm.vector();
  gradients.forEach((row, r) => {
    vm.broadcast(weight, values, r * 4);
    row.forEach((gradient, v) => vm.fma(sums[0][v], gradient, weight));
  });
  emitStore(vm, sums, target);
  vm.free(weight, ...sums.flat());
}

/**
 * The ways to compute a product on the GPU, as data.
 * @module
 */
import { UnsupportedError } from "../../core/errors.ts";
import type { ShaderTarget, SubgroupMatrixSize } from "../shader.ts";
import type { ProductPrecision } from "./wgsl_product.ts";

/** What all kinds of shader have. */
interface Tiling {
  /** Names all the fields; part of the shader's key. */
  readonly name: string;
  /** Results that a workgroup makes. */
  readonly tileRows: number;
  readonly tileColumns: number;
  /** Results that an invocation (of matrices, a subgroup) makes: multiples of 4 that divide the tile. */
  readonly blockRows: number;
  readonly blockColumns: number;
  readonly precision: ProductPrecision;
}

/** Tiles in workgroup memory: for GPUs. See `wgsl_tiled.ts`. */
export interface TiledConfiguration extends Tiling {
  readonly kind: "tiled";
  /** Steps of depth that lie in workgroup memory at a time: a multiple of 8. */
  readonly tileDepth: number;
  /** Tiles of each operand: with two, one barrier per tile instead of two, for twice the memory. */
  readonly buffers: 1 | 2;
  /** Estimated part of a multiprocessor's peak that the inner loop reaches. */
  readonly efficiency: number;
}

/** No workgroup memory: for a CPU that plays the GPU. See `wgsl_direct.ts`. */
export interface DirectConfiguration extends Tiling {
  readonly kind: "direct";
}

/** Tiles in workgroup memory, multiplied by tensor cores. See `wgsl_matrix.ts`. */
export interface MatrixConfiguration extends Tiling {
  readonly kind: "matrix";
  /** Steps of depth that lie in workgroup memory at a time: whole matrices. */
  readonly tileDepth: number;
  /** What a subgroup multiplies at once. */
  readonly matrix: SubgroupMatrixSize;
  readonly subgroupSize: number;
  /** Estimated speed in peaks of a multiprocessor's plain multipliers. */
  readonly efficiency: number;
}

/** One way to compute a product. */
export type MatmulConfiguration = TiledConfiguration | DirectConfiguration | MatrixConfiguration;

type Three = readonly [rows: number, columns: number, depth: number];
type Two = readonly [rows: number, columns: number];

// Efficiencies are estimates, not measurements: 64 multiplications against 4 reads and some arithmetic of indices in each step of an
// 8 × 8 block, less what barriers and too few invocations cost. A sweep on a GPU should replace them.
const tiledTilings: readonly (readonly [tile: Three, block: Two, buffers: 1 | 2, efficiency: number])[] = [
  [[128, 128, 16], [8, 8], 2, 0.8],
  [[128, 128, 16], [8, 8], 1, 0.75],
  [[128, 128, 8], [8, 8], 2, 0.74],
  [[128, 64, 16], [8, 8], 2, 0.72],
  [[64, 128, 16], [8, 8], 2, 0.72],
  [[128, 64, 16], [8, 4], 2, 0.65],
  [[64, 64, 16], [8, 4], 2, 0.6],
  [[64, 64, 16], [4, 4], 2, 0.5],
  [[32, 64, 16], [4, 4], 2, 0.4],
  [[32, 32, 16], [4, 4], 2, 0.3],
];

// Estimates, too: an H100's tensor cores do 15 times what its plain multipliers do in fp32, of which tiles of this size, read without
// its own instructions for copies, will see a quarter.
const matrixTilings: readonly (readonly [tile: Three, block: Two, efficiency: number])[] = [
  [[128, 128, 32], [32, 64], 4],
  [[128, 64, 32], [32, 32], 3.2],
  [[64, 128, 32], [32, 32], 3.2],
  [[64, 64, 32], [32, 32], 2.6],
  [[32, 64, 32], [16, 32], 1.6],
  [[32, 32, 32], [16, 16], 1],
];

// Lavapipe reads memory lane by lane: the larger the block, the fewer reads a multiplication has. The first is at least twice as fast
// as the last (9 GFLOP/s on one core; blocks of 16 × 16 are no faster), which compiles in a fifth of its time. Lanes lie below one
// another, so that in gradients of weights they stay within few lines of the cache.
const directTilings: readonly (readonly [tile: Two, block: Two])[] = [
  [[128, 8], [16, 8]],
  [[32, 32], [4, 4]],
];

/**
 * Every way that a target can compute products in a precision, those for its kind of GPU first.
 * @throws UnsupportedError for `fp16` where the GPU has none.
 */
export function matmulConfigurations(
  target: ShaderTarget,
  precision: ProductPrecision = "fp32",
): MatmulConfiguration[] {
  if (precision === "fp16" && !target.f16) {
    throw new UnsupportedError("Cannot multiply in fp16 on this GPU: wanted the feature shader-f16");
  }
  const tiled = tiledTilings.map(([tile, block, buffers, efficiency]): TiledConfiguration => ({
    kind: "tiled",
    name: `${precision}_${tile.join("x")}_${block.join("x")}_${buffers === 2 ? "double" : "single"}`,
    tileRows: tile[0],
    tileColumns: tile[1],
    tileDepth: tile[2],
    blockRows: block[0],
    blockColumns: block[1],
    buffers,
    precision,
    efficiency,
  }));
  const direct = directTilings.map(([tile, block]): DirectConfiguration => ({
    kind: "direct",
    name: `${precision}_direct_${tile.join("x")}_${block.join("x")}`,
    tileRows: tile[0],
    tileColumns: tile[1],
    blockRows: block[0],
    blockColumns: block[1],
    precision,
  }));
  const matrix = precision === "fp16" ? matrixConfigurations(target) : [];
  const all = target.isSoftware ? [...direct, ...tiled, ...matrix] : [...matrix, ...tiled, ...direct];
  return all.filter((configuration) =>
    configurationInvocations(configuration) <= target.maxInvocations &&
    configurationWorkgroupBytes(configuration) <= target.maxWorkgroupBytes
  );
}

/** Those of the largest matrices that a target multiplies: one size alone, so that sums do not depend on the tile. */
function matrixConfigurations({ subgroupMatrices = [], subgroupSize }: ShaderTarget): MatrixConfiguration[] {
  const volume = ({ rows, columns, depth }: SubgroupMatrixSize) => rows * columns * depth;
  const [matrix] = subgroupMatrices.toSorted((one, other) => volume(other) - volume(one));
  if (!matrix || subgroupSize === undefined) return [];
  const { rows, columns, depth } = matrix;
  return matrixTilings
    .map(([tile, block, efficiency]): MatrixConfiguration => ({
      kind: "matrix",
      name: `matrix_${rows}x${columns}x${depth}_${tile.join("x")}_${block.join("x")}_${subgroupSize}lanes`,
      tileRows: tile[0],
      tileColumns: tile[1],
      tileDepth: tile[2],
      blockRows: block[0],
      blockColumns: block[1],
      matrix,
      subgroupSize,
      precision: "fp16",
      efficiency,
    }))
    .filter((configuration) => {
      const { tileRows, tileColumns, tileDepth, blockRows, blockColumns } = configuration;
      const lines = [tileRows, tileColumns].map((size) => size * tileDepth / 4);
      return blockRows % rows === 0 && blockColumns % columns === 0 && tileDepth % depth === 0 &&
        columns % 4 === 0 && lines.every((count) => count % configurationInvocations(configuration) === 0);
    });
}

/** Elements from one row of a tile of float16 to the next: 16 bytes more than there are, so that neighbours meet other banks. */
export function matrixTileStride(rowLength: number): number {
  return rowLength + 8;
}

/** Invocations of a workgroup. */
export function configurationInvocations(configuration: MatmulConfiguration): number {
  const { kind, tileRows, tileColumns, blockRows, blockColumns } = configuration;
  const blocks = (tileRows / blockRows) * (tileColumns / blockColumns);
  return kind === "matrix" ? blocks * configuration.subgroupSize : blocks;
}

/** Bytes of workgroup memory. */
export function configurationWorkgroupBytes(configuration: MatmulConfiguration): number {
  if (configuration.kind === "direct") return 0;
  if (configuration.kind === "matrix") {
    const { tileRows, tileColumns, tileDepth, blockRows, blockColumns, matrix } = configuration;
    // Whichever way the tiles lie.
    const tileElements = (size: number) =>
      Math.max(size * matrixTileStride(tileDepth), tileDepth * matrixTileStride(size));
    const subgroups = (tileRows / blockRows) * (tileColumns / blockColumns);
    return 2 * (tileElements(tileRows) + tileElements(tileColumns)) +
      4 * subgroups * matrix.rows * matrix.columns;
  }
  const { tileRows, tileColumns, tileDepth, buffers, precision } = configuration;
  return (tileRows + tileColumns) * tileDepth * buffers * (precision === "fp16" ? 2 : 4);
}

/**
 * The product on tensor cores, through Chrome's extension of WGSL for them: a workgroup copies a tile of A and one of B to its
 * memory, rounded to float16, and each subgroup multiplies matrices from there with sums in float32, while the next tiles are on
 * their way from global memory. For targets with `subgroupMatrices`.
 *
 * - Tiles lie as their operands do, so that four neighbours in memory stay neighbours: what is contiguous, depth or not, decides whether
 *   the matrices are read by rows or by columns. Rows of a tile are 16 bytes longer than what they hold, against bank conflicts.
 * - Past the depth tiles are zero; past the last row or column they hold anything, which stays in rows and columns that are dropped.
 * - The sums pass through workgroup memory, one matrix of each subgroup at a time, since only memory tells which element is
 *   where; bias, activation and addend are applied on the way to the result.
 * - There is no arithmetic of subgroups besides: which one it is, is all that the code asks.
 *
 * Dawn checks these shaders, and their arithmetic is tested with matrices that plain loops play. No test multiplies on tensor cores.
 * @module
 */
import type { Shader } from "../shader.ts";
import { type MatrixConfiguration, matrixTileStride } from "./wgsl_configurations.ts";
import { productDeclarations, type ProductDestination, productShader } from "./wgsl_patches.ts";
import { type ProductTraits } from "./wgsl_product.ts";

/** A subgroup makes `blockRows` × `blockColumns` elements, a workgroup `tileRows` × `tileColumns` of one share of the depth. */
export function matrixShader(
  configuration: MatrixConfiguration,
  traits: ProductTraits,
  destination: ProductDestination,
): Shader {
  const { tileRows, tileColumns, tileDepth, blockRows, blockColumns, matrix, subgroupSize, name } =
    configuration;
  const subgroupsAcross = tileColumns / blockColumns;
  const subgroups = (tileRows / blockRows) * subgroupsAcross;
  const invocations = subgroups * subgroupSize;
  const a = tileSide("A", tileRows, tileDepth, !traits.aTransposed, invocations);
  const b = tileSide("B", tileColumns, tileDepth, traits.bTransposed, invocations);
  const [down, across] = [range(blockRows / matrix.rows), range(blockColumns / matrix.columns)];
  const sums = down.flatMap((r) => across.map((c) => ({ r, c, sum: `sum${r}_${c}` })));
  const fetch = (k: string) => [a, b].flatMap((side) => side.lines.map((n) => fetchText(side, n, k)));
  const matrixElements = matrix.rows * matrix.columns;

  const code = `enable subgroups;
enable chromium_experimental_subgroup_matrix;
${productDeclarations(traits, "fp16", destination)}
alias Left = subgroup_matrix_left<f16, ${matrix.depth}, ${matrix.rows}>;
alias Right = subgroup_matrix_right<f16, ${matrix.columns}, ${matrix.depth}>;
alias Sum = subgroup_matrix_result<f32, ${matrix.columns}, ${matrix.rows}>;
var<workgroup> tileA: array<f16, ${a.elements}>;
var<workgroup> tileB: array<f16, ${b.elements}>;
var<workgroup> drained: array<f32, ${subgroups * matrixElements}>;

// One matrix of each subgroup, from workgroup memory to the result.
fn drain(firstRow: u32, firstColumn: u32, share: u32, lane: u32) {
  for (var quad = lane; quad < ${subgroups * matrixElements / 4}u; quad += ${invocations}u) {
    let owner = quad / ${matrixElements / 4}u;
    let inside = quad % ${matrixElements / 4}u;
    let row = firstRow + owner / ${subgroupsAcross}u * ${blockRows}u + inside / ${matrix.columns / 4}u;
    let column = firstColumn + owner % ${subgroupsAcross}u * ${blockColumns}u + inside % ${
    matrix.columns / 4
  }u * 4u;
    let at = 4u * quad;
    finish(row, column, share, vec4f(drained[at], drained[at + 1u], drained[at + 2u], drained[at + 3u]));
  }
}

@compute @workgroup_size(${invocations})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) subgroup: u32
) {
  let firstA = group.y * ${tileRows}u;
  let firstB = group.x * ${tileColumns}u;
  let begin = group.z * sizes.shareDepth;
  let end = min(begin + sizes.shareDepth, sizes.depth);
  let blockA = subgroup / ${subgroupsAcross}u * ${blockRows}u;
  let blockB = subgroup % ${subgroupsAcross}u * ${blockColumns}u;
  ${[a, b].flatMap((side) => side.lines.map((n) => linePlace(side, n))).join("\n  ")}
  ${sums.map(({ sum }) => `var ${sum}: Sum;`).join(" ")}
  ${fetch("begin").join("\n  ")}
  for (var k = begin; k < end; k += ${tileDepth}u) {
    ${[a, b].flatMap((side) => side.lines.map((n) => storeText(side, n))).join("\n    ")}
    workgroupBarrier();
    if (k + ${tileDepth}u < end) {
      ${fetch(`k + ${tileDepth}u`).join("\n      ")}
    }
${
    range(tileDepth / matrix.depth).map((step) =>
      multiplyText({ a, b, down, across, matrix }, step * matrix.depth)
    ).join("\n")
  }
    workgroupBarrier();
  }
  ${
    sums.map(({ r, c, sum }) =>
      `subgroupMatrixStore<row_major>(&drained, subgroup * ${matrixElements}u, ${sum}, ${matrix.columns}u);
  workgroupBarrier();
  drain(firstA + ${r * matrix.rows}u, firstB + ${c * matrix.columns}u, group.z, lane);
  workgroupBarrier();`
    ).join("\n  ")
  }
}`;
  return productShader(name, traits, destination, code);
}

/** One operand's tile: `[row or column][depth]` if memory has depth neighbours together, else `[depth][row or column]`. */
interface TileSide {
  readonly name: "A" | "B";
  readonly depthContiguous: boolean;
  /** Elements from one row of the tile in workgroup memory to the next. */
  readonly stride: number;
  readonly elements: number;
  /** Lines of four neighbours in a row of the tile. */
  readonly linesPerRow: number;
  /** Numbers of the lines that an invocation copies. */
  readonly lines: readonly number[];
  readonly invocations: number;
}

function tileSide(
  name: "A" | "B",
  size: number,
  tileDepth: number,
  depthContiguous: boolean,
  invocations: number,
): TileSide {
  const [rows, rowLength] = depthContiguous ? [size, tileDepth] : [tileDepth, size];
  const stride = matrixTileStride(rowLength);
  const lines = range(size * tileDepth / 4 / invocations);
  return {
    name,
    depthContiguous,
    stride,
    elements: rows * stride,
    linesPerRow: rowLength / 4,
    lines,
    invocations,
  };
}

/** Which line an invocation copies: `outerA0` and `depthA0` in the tile, `slotA0` in its memory. */
function linePlace({ name, depthContiguous, stride, linesPerRow, invocations }: TileSide, n: number): string {
  const line = n === 0 ? "lane" : `(lane + ${n * invocations}u)`;
  const [row, within] = depthContiguous ? ["outer", "depth"] : ["depth", "outer"];
  const at = `${name}${n}`;
  return `let ${row}${at} = ${line} / ${linesPerRow}u; let ${within}${at} = ${line} % ${linesPerRow}u * 4u; ` +
    `let slot${at} = ${row}${at} * ${stride}u + ${within}${at}; var line${at}: vec4h;`;
}

function fetchText({ name }: TileSide, n: number, k: string): string {
  const at = `${name}${n}`;
  return `line${at} = line${name}(first${name} + outer${at}, ${k} + depth${at});`;
}

function storeText({ name }: TileSide, n: number): string {
  const at = `${name}${n}`;
  return range(4).map((i) => `tile${name}[slot${at} + ${i}u] = line${at}[${i}];`).join(" ");
}

interface Multiplication extends Pick<MatrixConfiguration, "matrix"> {
  readonly a: TileSide;
  readonly b: TileSide;
  readonly down: readonly number[];
  readonly across: readonly number[];
}

/** All matrices of a subgroup at a depth of the tiles. */
function multiplyText({ a, b, down, across, matrix }: Multiplication, depth: number): string {
  // Rows of the left matrix are A's, columns of the right one B's: each lies by rows where its memory does.
  const load = ({ name, depthContiguous, stride }: TileSide, from: number) => {
    const [kind, major] = name === "A"
      ? ["Left", depthContiguous ? "row_major" : "col_major"]
      : ["Right", depthContiguous ? "col_major" : "row_major"];
    const place = depthContiguous
      ? `(block${name} + ${from}u) * ${stride}u + ${depth}u`
      : `block${name} + ${from + depth * stride}u`;
    return `subgroupMatrixLoad<${kind}, ${major}>(&tile${name}, ${place}, ${stride}u)`;
  };
  const lines = [
    ...across.map((c) => `let b${c} = ${load(b, c * matrix.columns)};`),
    ...down.flatMap((r) => [
      `let a${r} = ${load(a, r * matrix.rows)};`,
      ...across.map((c) => `sum${r}_${c} = subgroupMatrixMultiplyAccumulate(a${r}, b${c}, sum${r}_${c});`),
    ]),
  ];
  return `    {\n      ${lines.join("\n      ")}\n    }`;
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

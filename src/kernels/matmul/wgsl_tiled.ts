/**
 * The product for GPUs: a workgroup copies a tile of A and one of B to its memory, and each invocation multiplies a block of
 * registers from there, while the next tiles are on their way from global memory.
 *
 * What keeps the multipliers busy:
 * - A block of 8 × 8 costs four reads of 16 bytes from workgroup memory per 64 multiplications.
 * - The tiles lie `[depth][row]`, so that a read is four neighbours of a block. Where memory has depth neighbours together,
 *   invocations turn patches of 4 × 4 around in registers.
 * - Invocations of a row read and write at a distance of four: eight of them touch all banks of the memory, once.
 *   In every second quad of depth the quads of rows change places (`^ 4`), so that patches stored together meet no bank twice:
 *   as good as padding, for no memory.
 * - Steps of depth are written out, so that indices are constants or do not change in the loop, and checks of bounds, which
 *   WebGPU adds to what it cannot prove, leave the loop.
 *
 * Each element is summed in the order of the depth, whatever the tiles: the configuration does not change a bit of a result,
 * shares of the depth apart.
 * @module
 */
import type { Shader } from "../shader.ts";
import type { TiledConfiguration } from "./wgsl_configurations.ts";
import {
  operandMatrix,
  operandVector,
  productDeclarations,
  type ProductDestination,
  productShader,
} from "./wgsl_patches.ts";
import { type ProductPrecision, type ProductTraits } from "./wgsl_product.ts";

/** An invocation makes `blockRows` × `blockColumns` elements, a workgroup `tileRows` × `tileColumns` of one share of the depth. */
export function tiledShader(
  configuration: TiledConfiguration,
  traits: ProductTraits,
  destination: ProductDestination,
): Shader {
  const { tileRows, tileColumns, tileDepth, blockRows, blockColumns, buffers, precision, name } =
    configuration;
  const [lanesDown, lanesAcross] = [tileRows / blockRows, tileColumns / blockColumns];
  const invocations = lanesDown * lanesAcross;
  const a: TileSide = { name: "A", size: tileRows, tileDepth, turned: !traits.aTransposed };
  const b: TileSide = { name: "B", size: tileColumns, tileDepth, turned: traits.bTransposed };
  const copies = copiesOf(a, b, invocations);
  const [down, across] = [range(blockRows / 4), range(blockColumns / 4)];
  const rowsOfBlock = range(blockRows);
  const fetch = (k: string, indent: string) => copies.map((copy) => fetchText(copy, k)).join(`\n${indent}`);

  const code = `${productDeclarations(traits, precision, destination)}
${[a, b].map((side) => tileDeclaration(side, configuration)).join("\n")}
@compute @workgroup_size(${invocations})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let firstA = group.y * ${tileRows}u;
  let firstB = group.x * ${tileColumns}u;
  let begin = group.z * sizes.shareDepth;
  let end = min(begin + sizes.shareDepth, sizes.depth);
  let laneRow = lane / ${lanesAcross}u;
  let laneColumn = lane % ${lanesAcross}u;
  ${down.map((r) => `let atA${r} = ${shifted("laneRow", r * lanesDown)};`).join("\n  ")}
  ${across.map((c) => `let atB${c} = ${shifted("laneColumn", c * lanesAcross)};`).join("\n  ")}
  ${copies.map((copy) => copyPlaces(copy, a, b, precision)).join("\n  ")}
  ${rowsOfBlock.map((i) => across.map((c) => `var sum${i}_${c} = vec4f();`).join(" ")).join("\n  ")}
  ${fetch("begin", "  ")}
  var stage = 0u;
  for (var k = begin; k < end; k += ${tileDepth}u) {
    ${copies.map((copy) => storeText(copy)).join("\n    ")}
    workgroupBarrier();
    if (k + ${tileDepth}u < end) {
      ${fetch(`k + ${tileDepth}u`, "      ")}
    }
${range(tileDepth).map((step) => multiplyText(step, a, b, down, across)).join("\n")}
    ${buffers === 2 ? "stage ^= 1u;" : "workgroupBarrier();"}
  }
  ${
    rowsOfBlock.map((i) =>
      across.map((c) =>
        `finish(firstA + 4u * atA${i >> 2} + ${i & 3}u, firstB + 4u * atB${c}, group.z, sum${i}_${c});`
      ).join("\n  ")
    ).join("\n  ")
  }
}`;
  return productShader(name, traits, destination, code);
}

/** One operand's tile. */
interface TileSide {
  readonly name: "A" | "B";
  /** Its rows (A) or columns (B). */
  readonly size: number;
  readonly tileDepth: number;
  /** Whether memory has depth neighbours together, so that patches are turned around. */
  readonly turned: boolean;
}

/** The patches that invocations copy in one go: number `first + lane`, for those lanes that have one. */
interface PatchCopy {
  readonly index: number;
  readonly first: number;
  /** Lanes below this copy a patch of A. */
  readonly lanesOfA: number;
  /** Lanes below this copy a patch. */
  readonly lanes: number;
  readonly invocations: number;
  readonly patchesOfA: number;
}

function patchCount({ size, tileDepth }: TileSide): number {
  return (size / 4) * (tileDepth / 4);
}

/** Shares out the patches of A and, after them, of B. */
function copiesOf(a: TileSide, b: TileSide, invocations: number): PatchCopy[] {
  const patchesOfA = patchCount(a);
  const patches = patchesOfA + patchCount(b);
  return range(Math.ceil(patches / invocations)).map((index) => {
    const first = index * invocations;
    return {
      index,
      first,
      lanesOfA: Math.min(Math.max(patchesOfA - first, 0), invocations),
      lanes: Math.min(patches - first, invocations),
      invocations,
      patchesOfA,
    };
  });
}

function tileDeclaration(
  { name, size }: TileSide,
  { tileDepth, buffers, precision }: TiledConfiguration,
): string {
  const slice = `array<array<${operandVector(precision)}, ${size / 4}>, ${tileDepth}>`;
  return `var<workgroup> tile${name}: array<${slice}, ${buffers}>;`;
}

/**
 * Text that runs for the lanes that copy a patch of A, and for those that copy one of B. Borders are multiples of 32, so lanes of
 * a subgroup go the same way.
 */
function perSide(
  { lanesOfA, lanes, invocations }: PatchCopy,
  textOf: (side: "A" | "B") => string,
): string {
  const last = lanes < invocations ? `if (lane < ${lanes}u) { ${textOf("B")} }` : textOf("B");
  if (lanesOfA === 0) return last;
  if (lanesOfA === invocations) return textOf("A");
  const others = lanes === lanesOfA ? "" : ` else ${lanes < invocations ? last : `{ ${last} }`}`;
  return `if (lane < ${lanesOfA}u) { ${textOf("A")} }${others}`;
}

/** Which patch a lane copies: `outer` in quads of rows or columns, `quad` in quads of depth; and where it is stored. */
function copyPlaces(copy: PatchCopy, a: TileSide, b: TileSide, precision: ProductPrecision): string {
  const { index, first, patchesOfA } = copy;
  const places = (side: TileSide) => {
    const patch = shifted("lane", side.name === "A" ? first : first - patchesOfA);
    const [outerQuads, depthQuads] = [side.size / 4, side.tileDepth / 4];
    if (!side.turned) {
      return `outer${index} = ${patch} % ${outerQuads}u; quad${index} = ${patch} / ${outerQuads}u; ` +
        `slot${index} = outer${index};`;
    }
    // Eight neighbours read 32 bytes of each of four lines, and store to eight different banks.
    return `outer${index} = ${patch} % 4u + ${patch} / ${4 * depthQuads}u * 4u; ` +
      `quad${index} = ${patch} / 4u % ${depthQuads}u; ` +
      `slot${index} = outer${index} ^ ((quad${index} & 1u) << 2u);`;
  };
  return `var outer${index}: u32; var quad${index}: u32; var slot${index}: u32; ` +
    `var patch${index}: ${operandMatrix(precision)};\n  ` +
    perSide(copy, (name) => places(name === "A" ? a : b));
}

function fetchText(copy: PatchCopy, k: string): string {
  const { index } = copy;
  return perSide(
    copy,
    (name) => `patch${index} = patch${name}(first${name} + 4u * outer${index}, ${k} + 4u * quad${index});`,
  );
}

function storeText(copy: PatchCopy): string {
  const { index } = copy;
  return perSide(
    copy,
    (name) =>
      range(4).map((n) =>
        `tile${name}[stage][4u * quad${index} + ${n}u][slot${index}] = patch${index}[${n}];`
      ).join(" "),
  );
}

/** One step of depth: the outer product of a column of A's tile and a row of B's. */
function multiplyText(
  step: number,
  a: TileSide,
  b: TileSide,
  down: readonly number[],
  across: readonly number[],
): string {
  const read = (side: TileSide, n: number) => {
    const swizzled = side.turned && (step & 4) !== 0;
    return `vec4f(tile${side.name}[stage][${step}][at${side.name}${n}${swizzled ? " ^ 4u" : ""}])`;
  };
  const reads = [
    ...down.map((r) => `let a${r} = ${read(a, r)};`),
    ...across.map((c) => `let b${c} = ${read(b, c)};`),
  ];
  const sums = down.flatMap((r) =>
    range(4).map((n) =>
      across.map((c) => `sum${4 * r + n}_${c} = fma(vec4f(a${r}[${n}]), b${c}, sum${4 * r + n}_${c});`).join(
        " ",
      )
    )
  );
  return `    {\n      ${[...reads, ...sums].join("\n      ")}\n    }`;
}

/** `(name + offset)`, as short as it goes. */
function shifted(name: string, offset: number): string {
  if (offset === 0) return name;
  return `(${name} ${offset < 0 ? "-" : "+"} ${Math.abs(offset)}u)`;
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

/**
 * Sums over the columns on the GPU: of chunks of columns first, so that many workgroups have work, then of those sums.
 *
 * Chunks, and the order within them, follow from the number of columns alone.
 * @module
 */
import {
  type BufferRange,
  defineLowering,
  type Shader,
  type ShaderCall,
  type ShaderTarget,
  wholeRange,
} from "../shader.ts";
import { callShader, workgroupSize, writeShader } from "../wgsl_shader.ts";
import { sumColumns } from "./operation.ts";

/** Features that a workgroup sums: what it reads of a column is a line of 128 bytes. */
const blockFeatures = 32;
/** Columns that a workgroup reads at a time. */
const blockColumns = workgroupSize / blockFeatures;
/** The same on a CPU that plays the GPU: a barrier costs more than the columns of a chunk. */
const softwareColumns = 1;
/** Columns of a chunk, unless there would be more chunks than `mostChunks`. */
const leastChunkColumns = 64;
const mostChunks = 256;

/** What is summed. */
export interface ColumnSums {
  readonly key: string;
  /** Storage that the terms read, as in `ShaderText`. */
  readonly reads: Readonly<Record<string, string>>;
  /** Two sums at most: WGSL expressions of `at` (the place of the element), `column` and `sizes.columns`. */
  readonly terms: readonly [string] | readonly [string, string];
}

/** sum[chunk][feature] of each term, over the columns of the chunk. */
function columnSumShader({ key, reads, terms }: ColumnSums, { isSoftware }: ShaderTarget): Shader {
  const columnsAtOnce = isSoftware ? softwareColumns : blockColumns;
  const lanes = blockFeatures * columnsAtOnce;
  const isShared = columnsAtOnce > 1;
  const type = terms.length === 1 ? "f32" : "vec2f";
  const parts = terms.length === 1 ? [""] : [".x", ".y"];
  return writeShader({
    key: `${key}_f32_columns${columnsAtOnce}`,
    workgroupSize: lanes,
    reads,
    writes: Object.fromEntries(terms.map((_, index) => [`result${index}`, "array<f32>"])),
    sizes: { features: "u32", columns: "u32", chunkColumns: "u32" },
    declarations: isShared ? `var<workgroup> sums: array<${type}, ${lanes}>;` : "",
    main: `
  let features = sizes.features;
  let blocks = (features + ${blockFeatures - 1}u) / ${blockFeatures}u;
  let chunk = group / blocks;
  let feature = group % blocks * ${blockFeatures}u + lane % ${blockFeatures}u;
  let begin = chunk * sizes.chunkColumns;
  let end = min(begin + sizes.chunkColumns, sizes.columns);
  var sum = ${type}();
  if (feature < features) {
    for (var column = begin + lane / ${blockFeatures}u; column < end; column += ${columnsAtOnce}u) {
      let at = column * features + feature;
      sum += ${type}(${terms.join(", ")});
    }
  }
  ${isShared ? "sums[lane] = sum;\n  workgroupBarrier();" : ""}
  if (lane < ${blockFeatures}u && feature < features) {
    ${
      isShared
        ? `for (var i = 1u; i < ${columnsAtOnce}u; i++) { sum += sums[lane + i * ${blockFeatures}u]; }`
        : ""
    }
    ${
      parts.map((part, index) => `result${index}[chunk * features + feature] = sum${part};`).join(
        "\n    ",
      )
    }
  }`,
  });
}

const plainSums: ColumnSums = { key: "sum_columns", reads: { x: "array<f32>" }, terms: ["x[at]"] };

function chunksOf(columns: number): { chunks: number; chunkColumns: number } {
  const chunkColumns = Math.max(leastChunkColumns, Math.ceil(columns / mostChunks));
  return { chunks: Math.ceil(columns / chunkColumns), chunkColumns };
}

/** Bytes of the sums of chunks, of one term; none where one chunk is all. */
export function columnSumScratchBytes(features: number, columns: number): number[] {
  const { chunks } = chunksOf(columns);
  return chunks > 1 ? [4 * chunks * features] : [];
}

/** The calls that sum over the columns of `sources` into `results`, one of each term, [features]. */
export function columnSumCalls(
  what: ColumnSums,
  { sources, results, scratch, features, columns, target }: {
    readonly sources: readonly BufferRange[];
    readonly results: readonly BufferRange[];
    /** By term what `columnSumScratchBytes` asks for. */
    readonly scratch: readonly BufferRange[];
    readonly features: number;
    readonly columns: number;
    readonly target: ShaderTarget;
  },
): ShaderCall[] {
  const { chunks, chunkColumns } = chunksOf(columns);
  const blocks = Math.ceil(features / blockFeatures);
  const sums = chunks > 1 ? scratch : results;
  const shader = columnSumShader(plainSums, target);
  return [
    callShader(
      columnSumShader(what, target),
      [...sources, ...sums],
      [features, columns, chunkColumns],
      chunks * blocks,
      target,
    ),
    ...(chunks > 1
      ? results.map((result, term) =>
        callShader(shader, [scratch[term], result], [features, chunks, chunks], blocks, target)
      )
      : []),
  ];
}

/** sums[n] = Σ_c gradY[n, c]. */
export const sumColumnsShaders = defineLowering({
  operation: sumColumns,
  scratchBytes({ inputTypes: [gradY] }) {
    const [features, columns] = gradY!.shape;
    return columnSumScratchBytes(features, columns);
  },
  lower({ inputs: [gradY], outputs: [sums], scratch, target }) {
    const [features, columns] = gradY!.type.shape;
    const [source, result] = [gradY!, sums].map((operand) => wholeRange(operand, "sumColumns"));
    return columnSumCalls(plainSums, {
      sources: [source],
      results: [result],
      scratch,
      features,
      columns,
      target,
    });
  },
});

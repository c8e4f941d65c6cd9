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
export function columnSumShader({ key, reads, terms }: ColumnSums): Shader {
  const type = terms.length === 1 ? "f32" : "vec2f";
  const parts = terms.length === 1 ? [""] : [".x", ".y"];
  return writeShader({
    key,
    reads,
    writes: Object.fromEntries(terms.map((_, index) => [`result${index}`, "array<f32>"])),
    sizes: { features: "u32", columns: "u32", chunkColumns: "u32" },
    declarations: `var<workgroup> sums: array<${type}, ${workgroupSize}>;`,
    main: `
  let blocks = (sizes.features + ${blockFeatures - 1}u) / ${blockFeatures}u;
  let chunk = group / blocks;
  let feature = group % blocks * ${blockFeatures}u + lane % ${blockFeatures}u;
  let begin = chunk * sizes.chunkColumns;
  let end = min(begin + sizes.chunkColumns, sizes.columns);
  var sum = ${type}();
  if (feature < sizes.features) {
    for (var column = begin + lane / ${blockFeatures}u; column < end; column += ${blockColumns}u) {
      let at = column * sizes.features + feature;
      sum += ${type}(${terms.join(", ")});
    }
  }
  sums[lane] = sum;
  workgroupBarrier();
  if (lane < ${blockFeatures}u && feature < sizes.features) {
    for (var i = 1u; i < ${blockColumns}u; i++) { sum += sums[lane + i * ${blockFeatures}u]; }
    ${
      parts.map((part, index) => `result${index}[chunk * sizes.features + feature] = sum${part};`).join(
        "\n    ",
      )
    }
  }`,
  });
}

const shader = columnSumShader({ key: "sum_columns", reads: { x: "array<f32>" }, terms: ["x[at]"] });

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
  first: Shader,
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
  return [
    callShader(first, [...sources, ...sums], [features, columns, chunkColumns], chunks * blocks, target),
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
    return columnSumCalls(shader, {
      sources: [source],
      results: [result],
      scratch,
      features,
      columns,
      target,
    });
  },
});

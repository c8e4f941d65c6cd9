/**
 * Adding columns to the rows that a list names, on the GPU, in an order that the list alone decides.
 *
 * There are no atomic sums of floats. The columns are sorted by row instead: then each row adds up a stretch of the sorted
 * list by itself, and rows of empty stretches are zero. Rows that many columns name (a table of token types has two rows) would
 * keep few invocations busy for long, so chunks of the sorted list that lie in one stretch are summed before.
 * @module
 */
import type { BufferRange, ShaderCall, ShaderTarget } from "../shader.ts";
import { callShader, type FeatureVector, featureVector, workgroupSize, writeShader } from "../wgsl_shader.ts";

/** Sorted columns that are summed together. */
const chunkColumns = 32;

/** Columns whose place a workgroup finds; each is compared with the others by several invocations. */
const sortedAtOnce = 32;
const comparers = workgroupSize / sortedAtOnce;

/** As an unsigned number −1 comes after all rows. */
const noRow = "0xffffffffu";

/** place(c) = how many columns come before c: those of lower rows, and of the same row those before c. */
const sortShader = writeShader({
  key: "scatter_sort",
  reads: { rows: "array<i32>" },
  writes: { order: "array<u32>", sortedRows: "array<u32>" },
  sizes: { columns: "u32" },
  declarations: `var<workgroup> counts: array<u32, ${workgroupSize}>;`,
  main: `
  let column = group * ${sortedAtOnce}u + lane % ${sortedAtOnce}u;
  let part = lane / ${sortedAtOnce}u;
  let share = (sizes.columns + ${comparers - 1}u) / ${comparers}u;
  let end = min((part + 1u) * share, sizes.columns);
  var row = ${noRow};
  if (column < sizes.columns) { row = u32(rows[column]); }
  var place = 0u;
  for (var other = part * share; other < end; other++) {
    let otherRow = u32(rows[other]);
    place += u32(otherRow < row || (otherRow == row && other < column));
  }
  counts[lane] = place;
  workgroupBarrier();
  if (part == 0u && column < sizes.columns) {
    for (var i = 1u; i < ${comparers}u; i++) { place += counts[lane + i * ${sortedAtOnce}u]; }
    order[place] = column;
    sortedRows[place] = row;
  }`,
});

/** begins[r] = the first place in the sorted list with a row of r or more, for 0 ≤ r ≤ rows. */
const beginsShader = writeShader({
  key: "scatter_begins",
  reads: { sortedRows: "array<u32>" },
  writes: { begins: "array<u32>" },
  sizes: { columns: "u32", rows: "u32" },
  main: `
  let row = group * ${workgroupSize}u + lane;
  if (row > sizes.rows) { return; }
  var low = 0u;
  var high = sizes.columns;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (sortedRows[middle] < row) { low = middle + 1u; } else { high = middle; }
  }
  begins[row] = low;`,
});

/** The sums of chunks that lie in one row; of others nothing is written. */
const chunksShader = (type: FeatureVector["type"]) =>
  writeShader({
    key: `scatter_chunks_${type}`,
    reads: { source: `array<${type}>`, order: "array<u32>", sortedRows: "array<u32>" },
    writes: { chunkSums: `array<${type}>` },
    sizes: { vectors: "u32", chunks: "u32" },
    main: `
  let i = group * ${workgroupSize}u + lane;
  let chunk = i / sizes.vectors;
  if (chunk >= sizes.chunks) { return; }
  let begin = chunk * ${chunkColumns}u;
  let end = begin + ${chunkColumns}u;
  let row = sortedRows[begin];
  if (row == ${noRow} || row != sortedRows[end - 1u]) { return; }
  var sum = ${type}();
  for (var place = begin; place < end; place++) { sum += source[order[place] * sizes.vectors + i % sizes.vectors]; }
  chunkSums[i] = sum;`,
  });

/** The sums of rows from `firstRow` on: an invocation makes one vector of one row. */
const rowsShader = (type: FeatureVector["type"]) =>
  writeShader({
    key: `scatter_rows_${type}`,
    reads: {
      source: `array<${type}>`,
      order: "array<u32>",
      begins: "array<u32>",
      chunkSums: `array<${type}>`,
    },
    writes: { result: `array<${type}>` },
    sizes: { vectors: "u32", firstRow: "u32", rows: "u32" },
    main: `
  let i = group * ${workgroupSize}u + lane;
  let row = i / sizes.vectors;
  if (row >= sizes.rows) { return; }
  let feature = i % sizes.vectors;
  var place = begins[sizes.firstRow + row];
  let end = begins[sizes.firstRow + row + 1u];
  let firstChunk = (place + ${chunkColumns - 1}u) / ${chunkColumns}u;
  let endChunk = end / ${chunkColumns}u;
  var sum = ${type}();
  if (firstChunk < endChunk) {
    for (; place < firstChunk * ${chunkColumns}u; place++) { sum += source[order[place] * sizes.vectors + feature]; }
    for (var chunk = firstChunk; chunk < endChunk; chunk++) { sum += chunkSums[chunk * sizes.vectors + feature]; }
    place = endChunk * ${chunkColumns}u;
  }
  for (; place < end; place++) { sum += source[order[place] * sizes.vectors + feature]; }
  result[i] = sum;`,
  });

/** Bytes of what `scatterCalls` keeps: the order, the rows in that order, where rows begin, sums of chunks. */
export function scatterScratchBytes(features: number, columns: number, rows: number): number[] {
  const chunks = Math.max(1, Math.floor(columns / chunkColumns));
  return [4 * columns, 4 * columns, 4 * (rows + 1), 4 * chunks * features];
}

/** Some rows of a result. */
export interface RowRange {
  readonly range: BufferRange;
  readonly firstRow: number;
  readonly rows: number;
}

/**
 * results[r] = Σ over the columns c with rows[c] = r of source[c], each [features]. Columns of row −1 go nowhere. All rows of the
 * results are written.
 */
export function scatterCalls({ source, rows, results, scratch, features, columns, target }: {
  /** f32 [columns][features] */
  readonly source: BufferRange;
  /** i32 [columns] */
  readonly rows: BufferRange;
  /** All rows, in order. */
  readonly results: readonly RowRange[];
  readonly scratch: readonly BufferRange[];
  readonly features: number;
  readonly columns: number;
  readonly target: ShaderTarget;
}): ShaderCall[] {
  const [order, sortedRows, begins, chunkSums] = scratch;
  const { type, count: vectors } = featureVector(features);
  const rowCount = results.reduce((sum, part) => sum + part.rows, 0);
  const chunks = Math.floor(columns / chunkColumns);
  const groupsOf = (invocations: number) => Math.ceil(invocations / workgroupSize);
  return [
    callShader(sortShader, [rows, order, sortedRows], [columns], Math.ceil(columns / sortedAtOnce), target),
    callShader(beginsShader, [sortedRows, begins], [columns, rowCount], groupsOf(rowCount + 1), target),
    callShader(
      chunksShader(type),
      [source, order, sortedRows, chunkSums],
      [vectors, chunks],
      groupsOf(chunks * vectors),
      target,
    ),
    ...results.map(({ range, firstRow, rows: partRows }) =>
      callShader(
        rowsShader(type),
        [source, order, begins, chunkSums, range],
        [vectors, firstRow, partRows],
        groupsOf(partRows * vectors),
        target,
      )
    ),
  ];
}

/**
 * Embedding lookup and its gradient on the GPU. The word table may be larger than a binding.
 * @module
 */
import { defineLowering, type Shader, type ShaderOperand, wholeRange } from "../shader.ts";
import { callShader, type FeatureVector, featureVector, workgroupSize, writeShader } from "../wgsl_shader.ts";
import { embedding, embeddingGradient } from "./operation.ts";
import { type RowRange, scatterCalls, scatterScratchBytes } from "./wgsl_scatter.ts";

/** Whose vector this is, and whether the word is in this part of the table: as an unsigned number −1 is in none. */
const place = `
  let i = group * ${workgroupSize}u + lane;
  let column = i / sizes.vectors;
  if (column >= sizes.columns) { return; }
  let feature = i % sizes.vectors;
  let row = u32(wordIds[column]) - sizes.firstRow;
  let isHere = row < sizes.rows;`;

const sizes = { vectors: "u32", columns: "u32", firstRow: "u32", rows: "u32" } as const;

/** result[c] = (positions[positionIds[c]] + types[typeIds[c]]) + words[wordIds[c]], of the first part of the words. */
function firstPartShader(type: FeatureVector["type"]): Shader {
  const [table, ids] = [`array<${type}>`, "array<i32>"];
  return writeShader({
    key: `embedding_${type}`,
    reads: { words: table, positions: table, types: table, wordIds: ids, positionIds: ids, typeIds: ids },
    writes: { result: table },
    sizes,
    main: `${place}
  let position = positionIds[column];
  let kind = typeIds[column];
  var sum = ${type}();
  if (position >= 0) { sum += positions[u32(position) * sizes.vectors + feature]; }
  if (kind >= 0) { sum += types[u32(kind) * sizes.vectors + feature]; }
  if (isHere) { sum += words[row * sizes.vectors + feature]; }
  result[i] = sum;`,
  });
}

/** The same of the other parts. The words come last in the sum, so the number of parts changes no bit of it, but in float16. */
function laterPartShader(type: FeatureVector["type"]): Shader {
  return writeShader({
    key: `embedding_part_${type}`,
    reads: { words: `array<${type}>`, wordIds: "array<i32>" },
    writes: { result: `array<${type}>` },
    sizes,
    main: `${place}
  if (isHere) { result[i] += words[row * sizes.vectors + feature]; }`,
  });
}

/** The parts of a table, with the rows in them. */
function tableParts({ type: { shape: [rowCount] }, parts, rowsPerPart }: ShaderOperand): RowRange[] {
  return parts.map((range, index) => {
    const firstRow = index * rowsPerPart;
    return { range, firstRow, rows: Math.min(rowsPerPart, rowCount - firstRow) };
  });
}

/** result = words[wordIds] + positions[positionIds] + types[typeIds], by column. */
export const embeddingShaders = defineLowering({
  operation: embedding,
  lower({ inputs: [words, ...others], outputs: [output], target }) {
    const [features, columns] = output.type.shape;
    const { type, count: vectors } = featureVector(features);
    const [positions, types, wordIds, positionIds, typeIds, result] = [...others, output].map((operand) =>
      wholeRange(operand!, "embedding")
    );
    const groups = Math.ceil(columns * vectors / workgroupSize);
    return tableParts(words!).map(({ range, firstRow, rows }, index) =>
      callShader(
        index === 0 ? firstPartShader(type) : laterPartShader(type),
        index === 0
          ? [range, positions, types, wordIds, positionIds, typeIds, result]
          : [range, wordIds, result],
        [vectors, columns, firstRow, rows],
        groups,
        target,
      )
    );
  },
});

/** gradTable[r] = Σ over the columns c with ids[c] = r of gradX[c]; the whole table is written. */
export const embeddingGradientShaders = defineLowering({
  operation: embeddingGradient,
  scratchBytes({ attributes: { rows }, inputTypes: [gradX] }) {
    const [features, columns] = gradX!.shape;
    return scatterScratchBytes(features, columns, rows);
  },
  lower({ inputs: [gradX, ids], outputs: [gradTable], scratch, target }) {
    const [features, columns] = gradX!.type.shape;
    return scatterCalls({
      source: wholeRange(gradX!, "embeddingGradient"),
      rows: wholeRange(ids!, "embeddingGradient"),
      results: tableParts(gradTable),
      scratch,
      features,
      columns,
      target,
    });
  },
});

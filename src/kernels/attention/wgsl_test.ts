import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../../core/random.ts";
import { indices, rows, tiled, type ValueType } from "../../graph/graph.ts";
import type { NumberArray } from "../../graph/operation.ts";
import { checkShaders, openDawn } from "../../webgpu/dawn.ts";
import { operandAt } from "../../webgpu/operands.ts";
import { normals } from "../conformance.ts";
import { elementName } from "../operands.ts";
import { firstBitDifference } from "../run_operation.ts";
import { runLowering, type TestGpu, testGpu } from "../shader_conformance.ts";
import type { AttentionAttributes } from "./lowering.ts";
import { attentionGradientReference, attentionReference } from "./reference.ts";
import { attentionShaders } from "./wgsl.ts";
import { attentionGradientShaders } from "./wgsl_gradient.ts";

interface Batch {
  readonly heads: number;
  readonly headSize: number;
  readonly dropout?: number;
  readonly lengths: readonly number[];
  /** Entries of the list of offsets that repeat the last one. */
  readonly spareSequences?: number;
  readonly columns: number;
}

/** Operands of attention, and what its gradient needs besides; padding columns hold what the others do. */
function operandsOf({ heads, headSize, dropout = 0, lengths, spareSequences = 0, columns }: Batch) {
  const random = new RandomStream(randomKey(21, "attention", heads, headSize, columns));
  const matrix = tiled(heads * headSize, columns);
  const offsets = new Int32Array(1 + lengths.length + spareSequences);
  for (let i = 1; i < offsets.length; i++) offsets[i] = offsets[i - 1] + (lengths[i - 1] ?? 0);
  const attributes: AttentionAttributes = { heads, dropout, stream: 5, training: true };
  const [q, k, v, gradContext] = [0, 1, 2, 3].map(() => normals(random, matrix));
  const seed = dropout > 0 ? Int32Array.of(random.below(2 ** 31), -random.below(2 ** 31)) : undefined;
  return { matrix, attributes, q, k, v, gradContext, offsets, seed, used: offsets[offsets.length - 1] };
}

type Operands = ReturnType<typeof operandsOf>;

/** Context, log-sum-exp and the gradients of q, k and v on the GPU. */
async function onGpu(gpu: TestGpu, operands: Operands) {
  const { matrix, attributes, q, k, v, gradContext, offsets, seed } = operands;
  const lists = [indices(offsets.length), seed && indices(2)];
  const forward = await runLowering(gpu, attentionShaders, attributes, [q, k, v, offsets, seed], [
    ...[matrix, matrix, matrix],
    ...lists,
  ]);
  const saved = [gradContext, q, k, v, ...forward, offsets, seed];
  const sums = rows(attributes.heads, matrix.shape[1]);
  const types = [matrix, matrix, matrix, matrix, matrix, sums, ...lists];
  return [...forward, ...await runLowering(gpu, attentionGradientShaders, attributes, saved, types)];
}

function reference({ matrix, attributes, q, k, v, gradContext, offsets, seed }: Operands): NumberArray[] {
  const [hidden, columns] = matrix.shape;
  const sizes = { ...attributes, headSize: hidden / attributes.heads, columns };
  const [q64, k64, v64, grad64] = [q, k, v, gradContext].map((array) => Float64Array.from(array));
  const { context, logSumExp } = attentionReference(q64, k64, v64, offsets, seed, sizes);
  const saved = { gradContext: grad64, context, logSumExp };
  const { gradQ, gradK, gradV } = attentionGradientReference(saved, q64, k64, v64, offsets, seed, sizes);
  return [context, logSumExp, gradQ, gradK, gradV];
}

/** The GPU of the tests as it is, and as if it were none of software's: each has shaders of its own. */
async function gpusOf(): Promise<readonly (readonly [kind: string, gpu: TestGpu])[]> {
  const gpu = await testGpu();
  if (!gpu) return [];
  const as = (isSoftware: boolean) => ({ ...gpu, target: { ...gpu.target, isSoftware } });
  return [["tiles", as(false)], ["direct", as(true)]];
}

const results = ["context", "logSumExp", "gradQ", "gradK", "gradV"];

Deno.test("attention's shaders follow the reference through several blocks, chunks and sequences", async (t) => {
  const gpus = await gpusOf();
  const batches: Batch[] = [
    { heads: 2, headSize: 64, lengths: [13, 128, 31, 32, 33, 64, 65, 0, 97], columns: 480 },
    { heads: 3, headSize: 32, dropout: 0.1, lengths: [100, 1, 63, 90], spareSequences: 12, columns: 256 },
    { heads: 2, headSize: 33, dropout: 0.5, lengths: [34, 65], columns: 128 },
    // More sequences than a workgroup has lanes.
    { heads: 1, headSize: 8, lengths: Array.from({ length: 150 }, (_, i) => i % 4), columns: 256 },
    { heads: 1, headSize: 12, lengths: [], spareSequences: 70, columns: 32 },
  ];
  for (const [[kind, gpu], batch] of gpus.flatMap((one) => batches.map((batch) => [one, batch] as const))) {
    const { heads, headSize, columns } = batch;
    await t.step(`${kind}: ${heads} heads of ${headSize}, ${columns} columns`, async () => {
      const operands = operandsOf(batch);
      const found = await onGpu(gpu, operands);
      reference(operands).forEach((wanted, result) => {
        found[result].forEach((value, i) => {
          const close = Math.abs(value - wanted[i]) <= 4e-5 + 4e-5 * Math.abs(wanted[i]);
          const type = result === 1 ? rows(heads, columns) : operands.matrix;
          assert(close, `${results[result]} at ${elementName(i, type)} is ${value}, wanted ${wanted[i]}`);
        });
      });
    });
  }
});

Deno.test("attention's shaders are what Dawn wants: barriers are in uniform control flow, 16 KiB are enough", async () => {
  const dawn = await openDawn();
  assert.equal(dawn.target.maxWorkgroupBytes, 16384);
  for (const [headSize, dropout, isSoftware] of [[64, 0.1, true], [64, 0.1, false], [5, 0, false]] as const) {
    const { attributes, matrix } = operandsOf({ heads: 2, headSize, dropout, lengths: [], columns: 32 });
    const operand = (type: ValueType) => operandAt("", type, { buffer: 0 }, dawn.target);
    const [matrices, list] = [operand(matrix), operand(indices(2))];
    const lowered = { attributes, scratch: matrices.parts, target: { ...dawn.target, isSoftware } };
    const lists = [list, dropout > 0 ? list : undefined];
    const shaders = [
      ...attentionShaders.lower({
        ...lowered,
        inputs: [matrices, matrices, matrices, ...lists],
        outputs: [matrices, matrices],
      }),
      ...attentionGradientShaders.lower({
        ...lowered,
        inputs: [...Array.from({ length: 6 }, () => matrices), ...lists],
        outputs: [matrices, matrices, matrices],
      }),
    ].map(({ shader }) => shader);
    await checkShaders(dawn, shaders);
  }
});

Deno.test("attention's shaders give the same bits on a grid of several rows", async () => {
  const gpu = await testGpu();
  if (!gpu) return;
  const operands = operandsOf({ heads: 2, headSize: 8, lengths: [40, 3, 21], columns: 96 });
  const narrow = { ...gpu, target: { ...gpu.target, maxWorkgroupsPerDimension: 5 } };
  const [wanted, found] = [await onGpu(gpu, operands), await onGpu(narrow, operands)];
  wanted.forEach((array, result) =>
    assert.equal(firstBitDifference(array, found[result]), -1, `${results[result]} differs`)
  );
});

Deno.test("attention's shaders keep NaN and ∞ of a sequence or of padding where they are", async (t) => {
  for (const [kind, gpu] of await gpusOf()) await t.step(kind, () => keepsSpecials(gpu));
});

async function keepsSpecials(gpu: TestGpu): Promise<void> {
  // Sequence 1 is the columns 3 to 42: its own blocks, and a neighbour on either side.
  const [columns, first, last] = [64, 3, 42];
  const batch = { heads: 2, headSize: 8, lengths: [3, 40, 9], columns };
  const clean = await onGpu(gpu, operandsOf(batch));
  for (const bad of [NaN, Infinity, -Infinity]) {
    for (const name of ["q", "k", "v"] as const) {
      const operands = operandsOf(batch);
      operands[name][4 * columns + 36] = bad;
      for (const array of [operands.q, operands.k, operands.v, operands.gradContext]) {
        array.forEach((_, i) => i % columns >= operands.used && (array[i] = bad));
      }
      const found = await onGpu(gpu, operands);
      found.forEach((array, result) =>
        array.forEach((value, i) => {
          const column = i % columns;
          const where = `${results[result]} in column ${column} with ${bad} in ${name}`;
          if (column >= operands.used) assert.equal(value, 0, where);
          else if (column < first || column > last) assert.equal(value, clean[result][i], where);
        })
      );
      // NaN and ∞ are where the reference has them.
      const wanted = reference(operands);
      for (const result of [0, 1]) {
        found[result].forEach((value, i) => {
          const where = `${results[result]} in column ${i % columns} with ${bad} in ${name}`;
          if (!Number.isFinite(wanted[result][i])) assert(Object.is(value, wanted[result][i]), where);
          else assert(Number.isFinite(value), where);
        });
      }
    }
  }
}

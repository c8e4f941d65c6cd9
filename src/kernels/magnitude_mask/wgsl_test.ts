/** Masks by magnitude on the GPU against `pruneMasks`: the same bits. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "../../core/errors.ts";
import { randomKey, RandomStream } from "../../core/random.ts";
import { setBit } from "../../pruning/bitset.ts";
import { magnitude } from "../../pruning/magnitude.ts";
import { countToPrune, type PrunableMatrix, pruneMasks, zeroPruned } from "../../pruning/method.ts";
import { type Pattern, weightGroup } from "../../pruning/pattern.ts";
import { poison } from "../run_operation.ts";
import type { BufferRange } from "../shader.ts";
import { runCalls, type TestGpu, testGpu } from "../shader_conformance.ts";
import { checkMaskReport, magnitudeMaskCalls, magnitudeMaskScratchBytes } from "./wgsl.ts";
import { zeroPrunedCalls } from "./wgsl_zero.ts";

/** A matrix with the mask it has. */
interface Masked extends PrunableMatrix {
  readonly mask: Uint32Array;
}

interface Outcome {
  readonly masks: Uint32Array[];
  readonly report: Uint32Array;
}

/** Words before each mask in its buffer, and before the report: neither need begin where bindings can. */
const wordsBefore = 2;

/** Renews all masks together, from scratch that held other things. */
async function selectOnGpu(
  gpu: TestGpu,
  matrices: readonly Masked[],
  pattern: Pattern,
  sparsity: number,
): Promise<Outcome> {
  const group = weightGroup(pattern);
  const sizes: number[] = [];
  const contents = new Map<number, Uint32Array>();
  const place = (words: number, data?: Uint32Array): BufferRange => {
    const buffer = sizes.push(4 * words) - 1;
    if (data) contents.set(buffer, data);
    return { buffer, byteOffset: 256, byteLength: 4 * words };
  };
  const placeLater = (words: number, data?: Uint32Array): BufferRange => {
    const before = Array(wordsBefore).fill(poison);
    const range = place(wordsBefore + words, data && Uint32Array.of(...before, ...data));
    return { ...range, byteOffset: 256 + 4 * wordsBefore, byteLength: 4 * words };
  };
  const placed = matrices.map(({ rows, columns, values, mask }) => ({
    ...{ rows, columns },
    weights: place(values.length, new Uint32Array(values.slice().buffer)),
    mask: placeLater(mask.length, mask),
  }));
  const report = placeLater(matrices.length);
  const calls = magnitudeMaskCalls({
    matrices: placed,
    prunedCount: countToPrune(
      pattern,
      sparsity,
      matrices.reduce((sum, { values }) => sum + values.length, 0),
    ),
    group,
    scratch: place(magnitudeMaskScratchBytes(matrices, group) / 4),
    report,
    target: gpu.target,
  });
  const results = [...placed.map(({ mask }) => mask), report];
  const masks = await runCalls(gpu, calls, sizes, contents, results, poison);
  return { report: masks.pop()!, masks };
}

/** The masks are those of `pruneMasks` of all matrices together; of one that is the masks of each. */
async function check(matrices: readonly Masked[], pattern: Pattern, sparsity: number): Promise<void> {
  const gpu = await testGpu();
  if (!gpu) return;
  const { masks } = await selectOnGpu(gpu, matrices, pattern, sparsity);
  const wanted = pruneMasks(matrices, {
    method: magnitude,
    ...{ pattern, sparsity, scope: "global" },
    previous: new Map(matrices.map(({ name, mask }) => [name, mask])),
  });
  matrices.forEach(({ name }, index) =>
    assert.deepEqual(masks[index], wanted.get(name), `${name}, ${pattern}`)
  );
}

function fullMask(count: number): Uint32Array {
  const mask = new Uint32Array(Math.ceil(count / 32));
  for (let i = 0; i < count; i++) setBit(mask, i);
  return mask;
}

function normals(name: string, rows: number, columns: number): Masked {
  const random = new RandomStream(randomKey(rows, name));
  const values = Float32Array.from({ length: rows * columns }, () => 0.02 * random.normal());
  return { ...{ name, rows, columns, values }, mask: fullMask(values.length) };
}

/** Few distinct values make ties; the others cover every bit pattern but NaN. */
const weight = fc.oneof(
  fc.constantFrom(-1, -0, 0, 1, 1 + 2 ** -23, 2, -2, Infinity, -Infinity, 2 ** -149, -(2 ** -149)),
  fc.float({ noNaN: true }),
);

const matrix = fc.record({
  rows: fc.integer({ min: 1, max: 6 }),
  columns: fc.integer({ min: 1, max: 70 }),
  isFresh: fc.boolean(),
}).chain(({ rows, columns, isFresh }) =>
  fc.array(fc.tuple(weight, fc.boolean()), { minLength: rows * columns, maxLength: rows * columns }).map(
    (weights) => {
      const mask = new Uint32Array(Math.ceil(weights.length / 32));
      weights.forEach(([, kept], index) => (kept || isFresh) && setBit(mask, index));
      return { rows, columns, values: Float32Array.from(weights, ([value]) => value), mask };
    },
  )
);

const named = fc.array(matrix, { minLength: 1, maxLength: 3 }).map((matrices) =>
  matrices.map((each, index): Masked => ({ ...each, name: `w${index}` }))
);

const share = fc.oneof(fc.constantFrom(0, 0.5, 1), fc.double({ min: 0, max: 1, noNaN: true }));

Deno.test("masks of single weights are those of pruneMasks, whatever the ties and the mask before", async () => {
  await fc.assert(
    fc.asyncProperty(named, share, (matrices, sparsity) => check(matrices, "unstructured", sparsity)),
    { numRuns: 25 },
  );
});

Deno.test("masks of N:M are those of pruneMasks, on the way and at its end", async () => {
  const patterns = fc.constantFrom<Pattern>("2:4", "1:3", "4:8", "1:2", "30:32", "5:31");
  await fc.assert(
    fc.asyncProperty(named, patterns, share, (matrices, pattern, part) => {
      const { kept, size } = weightGroup(pattern)!;
      return check(matrices, pattern, part * (1 - kept / size));
    }),
    { numRuns: 25 },
  );
});

Deno.test("masks of many chunks are those of pruneMasks", async () => {
  const matrices = [normals("a", 129, 257), normals("b", 64, 512), normals("c", 5, 3)];
  for (const sparsity of [0, 0.3, 0.9, 1]) await check(matrices, "unstructured", sparsity);
  await check(matrices, "2:4", 0.5);
  await check(matrices, "2:4", 0.3);
});

Deno.test("ties are pruned in order across chunks and matrices", async () => {
  const equal = ["a", "b", "c"].map((name) => {
    const each = normals(name, 100, 300);
    // Sign does not matter.
    each.values.forEach((value, i) => each.values[i] = value < 0 ? -0.5 : 0.5);
    return each;
  });
  for (const sparsity of [0.1, 0.5, 0.77]) await check(equal, "unstructured", sparsity);
});

Deno.test("chunks are more than a workgroup has invocations", async () => {
  const large = normals("large", 2200, 1000);
  large.values.forEach((value, i) => large.values[i] = Math.round(200 * value));
  await check([large], "unstructured", 0.6);
});

Deno.test("masks sharpen step by step as those of pruneMasks, and what is pruned stays so", async () => {
  let matrices = [normals("a", 40, 70), normals("b", 33, 65)];
  for (const sparsity of [0.2, 0.5, 0.4, 0.8]) {
    await check(matrices, "unstructured", sparsity);
    const previous = new Map(matrices.map(({ name, mask }) => [name, mask]));
    const masks = pruneMasks(matrices, {
      method: magnitude,
      ...{ pattern: "unstructured", sparsity, scope: "global", previous },
    });
    // As if training had made the pruned ones large.
    matrices = matrices.map((each) => ({
      ...each,
      values: each.values.map((value) => 1 / value),
      mask: masks.get(each.name)!,
    }));
  }
});

Deno.test("a NaN changes no mask and is reported as pruneMasks does", async () => {
  const gpu = await testGpu();
  if (!gpu) return;
  const matrices = [normals("query", 3, 50), normals("key", 50, 300), normals("value", 9, 9)];
  const names = matrices.map(({ name }) => name);
  const sound = await selectOnGpu(gpu, matrices, "unstructured", 0.5);
  checkMaskReport(names, sound.report);
  for (const index of [14_000, 8500]) new Uint32Array(matrices[1].values.buffer)[index] = 0xffc00001;
  const { masks, report } = await selectOnGpu(gpu, matrices, "unstructured", 0.5);
  assert.deepEqual(masks, matrices.map(({ mask }) => mask));
  const error = new InputError("Cannot prune key: score 8500 is NaN, wanted a number");
  assert.throws(() => checkMaskReport(names, report), error);
  assert.throws(
    () =>
      pruneMasks(matrices, {
        method: magnitude,
        ...{ pattern: "unstructured", sparsity: 0.5, scope: "global" },
      }),
    error,
  );
});

Deno.test("a count of weights that there are not is refused", () => {
  const range = { buffer: 0, byteOffset: 256, byteLength: 256 };
  const matrices = [{ rows: 2, columns: 3, weights: range, mask: range }];
  const target = { maxWorkgroupsPerDimension: 65535 } as TestGpu["target"];
  for (const prunedCount of [-1, 7, 0.5, NaN]) {
    assert.throws(
      () => magnitudeMaskCalls({ matrices, prunedCount, scratch: range, report: range, target }),
      new RangeError(`Cannot prune ${prunedCount} of 6 units`),
    );
  }
});

Deno.test("what masks prune is zeroed, NaN too, and nothing else", async () => {
  const gpu = await testGpu();
  if (!gpu) return;
  for (const count of [1, 31, 300, 1024]) {
    const random = new RandomStream(randomKey(count, "zero"));
    const mask = Uint32Array.from({ length: Math.ceil(count / 32) }, () => random.below(2 ** 32));
    const arrays = [0, 1, 2].map(() => Float32Array.from({ length: count }, () => random.normal()));
    const words = arrays.map((array) => new Uint32Array(array.buffer));
    words[0].fill(0x7fc00000, 0, 20);
    const places = [...words, mask].map(({ byteLength }, buffer) => ({
      buffer,
      byteOffset: 256,
      byteLength,
    }));
    const calls = zeroPrunedCalls({
      ranges: [{ mask: places[3], arrays: places.slice(0, 3), count }],
      target: gpu.target,
    });
    const sizes = places.map(({ byteLength }) => byteLength);
    const contents = new Map(
      [...words.map((each) => each.slice()), mask].map((each, buffer) => [buffer, each]),
    );
    const found = await runCalls(gpu, calls, sizes, contents, places.slice(0, 3), poison);
    zeroPruned(mask, arrays);
    assert.deepEqual(found, words);
  }
});

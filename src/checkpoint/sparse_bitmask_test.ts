import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import { InputError } from "../core/errors.ts";
import { writeFileAtomic } from "../core/files.ts";
import { bytesOf, openSafetensors, safetensorsContent, type TensorEntry } from "./safetensors.ts";
import {
  bitmaskBytes,
  bitmaskEntries,
  bitmaskPrefixes,
  countNonZeros,
  decodeBitmask,
  encodeBitmask,
  readBitmask,
  readBitmaskShape,
  rowOffsets,
} from "./sparse_bitmask.ts";

async function withFile(
  entries: readonly TensorEntry[],
  body: (file: Awaited<ReturnType<typeof openSafetensors>>) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const path = join(folder, "model.safetensors");
    await writeFileAtomic(path, safetensorsContent(entries));
    await body(await openSafetensors(path));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Matrices of every width around a byte, from empty to full. */
const matrices = fc.tuple(fc.nat(5), fc.nat(19), fc.double({ min: 0, max: 1, noNaN: true }), fc.nat()).map(
  ([rows, columns, density, seed]) => {
    let state = seed;
    const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
    const weight = Float32Array.from({ length: rows * columns }, () => next() < density ? next() - 0.5 : 0);
    return { weight, shape: [rows, columns] as const };
  },
);

Deno.test("encodeBitmask has the bytes of torch.packbits in little bit order", () => {
  // Rows of 10 columns: two bytes a row, lowest bit first. From compressed-tensors 0.12.2, BitmaskTensor.from_dense.
  const weight = new Float32Array(20);
  weight[0] = 1;
  weight[3] = -2;
  weight[9] = NaN;
  weight[4] = -0;
  weight[18] = 5;
  const matrix = encodeBitmask(weight, [2, 10]);
  assert.deepEqual([...matrix.bitmask], [0b00001001, 0b10, 0, 0b1]);
  assert.deepEqual([...matrix.values], [1, -2, NaN, 5]);
  assert.deepEqual(rowOffsets(matrix), [0, 3]);
  assert.throws(
    () => encodeBitmask(weight, [3, 10]),
    new RangeError("Cannot encode 20 weights, wanted 3 × 10"),
  );
});

Deno.test("decodeBitmask undoes encodeBitmask, and the bytes are as many as announced", () => {
  fc.assert(fc.property(matrices, ({ weight, shape }) => {
    const matrix = encodeBitmask(weight, shape);
    assert.deepEqual(decodeBitmask(matrix), weight);
    const bytes = bitmaskEntries("m", matrix).reduce((sum, entry) => sum + entry.data().length, 0);
    assert.equal(bytes, bitmaskBytes(shape, countNonZeros(weight)));
  }));
});

Deno.test("readBitmask reads both key styles", async () => {
  await fc.assert(
    fc.asyncProperty(
      matrices,
      fc.constantFrom("layer.dense", "layer.dense.weight"),
      async (dense, prefix) => {
        const matrix = encodeBitmask(dense.weight, dense.shape);
        await withFile(bitmaskEntries(prefix, matrix), async (file) => {
          assert.deepEqual(bitmaskPrefixes(file), new Map([["layer.dense.weight", prefix]]));
          const [rows, columns] = await readBitmaskShape(file, prefix);
          assert.deepEqual([rows, columns], dense.shape);
          assert.deepEqual(await readBitmask(file, prefix), matrix);
        });
      },
    ),
    { numRuns: 30 },
  );
});

Deno.test("bitmaskPrefixes refuses a matrix stored in both key styles", async () => {
  const matrix = encodeBitmask(new Float32Array([1]), [1, 1]);
  await withFile([...bitmaskEntries("a", matrix), ...bitmaskEntries("a.weight", matrix)], (file) => {
    assert.throws(
      () => bitmaskPrefixes(file),
      new InputError(`${file.path} holds a.weight twice, in both key styles`),
    );
    return Promise.resolve();
  });
});

Deno.test("readBitmask says which of the four tensors does not fit", async () => {
  const matrix = encodeBitmask(new Float32Array([1, 0, 0, 2, 0, 3]), [2, 3]);
  const i64 = (...values: number[]) => () => bytesOf(BigInt64Array.from(values, BigInt));
  const cases: [part: string, change: Partial<TensorEntry>, problem: string][] = [
    ["shape", { shape: [1], data: i64(2) }, "m.shape is [2], wanted [rows, columns]"],
    ["shape", { data: i64(-2, 3) }, "m.shape is [-2,3], wanted [rows, columns]"],
    ["shape", { data: i64(3, 3) }, "m.bitmask has the shape [2,1], wanted [3,1]"],
    ["shape", { data: i64(2, 9) }, "m.bitmask has the shape [2,1], wanted [2,2]"],
    ["shape", { data: i64(2, 2) }, "m.bitmask sets bits beyond column 2 in row 1"],
    [
      "shape",
      { data: i64(2 ** 50, 2 ** 50) },
      "m.bitmask has the shape [2,1], wanted [1125899906842624,140737488355328]",
    ],
    ["bitmask", { dtype: "I8" }, "m.bitmask has the type I8, wanted U8"],
    ["bitmask", { data: () => new Uint8Array([1, 0b1011]) }, "m.bitmask sets bits beyond column 3 in row 1"],
    ["bitmask", { data: () => new Uint8Array([1, 7]) }, "m.compressed has the shape [3], wanted [4]"],
    [
      "bitmask",
      { data: () => new Uint8Array([3, 1]) },
      "m.row_offsets[1] is 1, wanted 2 as the bitmask has it",
    ],
    ["row_offsets", { data: i64(0, 2) }, "m.row_offsets[1] is 2, wanted 1 as the bitmask has it"],
    ["row_offsets", { shape: [1], data: i64(0) }, "m.row_offsets has the shape [1], wanted [2]"],
    ["compressed", { dtype: "I32" }, "tensor m.compressed has the type I32, wanted F32, F16, BF16 or F64"],
    ["compressed", { shape: [3, 1] }, "m.compressed has the shape [3,1], wanted [3]"],
  ];
  for (const [part, change, problem] of cases) {
    const entries = bitmaskEntries("m", matrix).map((entry) =>
      entry.name === `m.${part}` ? { ...entry, ...change } : entry
    );
    await withFile(entries, async (file) => {
      await assert.rejects(readBitmask(file, "m"), new InputError(`${file.path}: ${problem}`));
    });
  }
  await withFile(bitmaskEntries("m", matrix).slice(1), async (file) => {
    await assert.rejects(readBitmask(file, "m"), new InputError(`${file.path} has no tensor m.shape`));
  });
});

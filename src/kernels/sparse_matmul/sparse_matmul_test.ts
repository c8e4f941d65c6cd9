/**
 * Packing and unpacking of sparse weights, and the sparse product against plain loops on every machine of this host.
 * @module
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { randomKey, RandomStream } from "../../core/random.ts";
import { rows, tiled, type ValueType } from "../../graph/graph.ts";
import { conform, type ConformanceCase, normals, padColumns } from "../conformance.ts";
import type { Activation } from "../matmul/reference.ts";
import { sparseMatmul, type SparseMatmulAttributes } from "./operation.ts";
import {
  forEachStored,
  type PackedStructure,
  type PackedWeight,
  packSparse,
  packSparseFromEntries,
  type SparseEntries,
  type SparsePattern,
  unpackSparse,
} from "./pack.ts";
import { splitBlocks } from "./shares.ts";
import { packedTypes } from "./types.ts";

const patterns: readonly SparsePattern[] = ["unstructured", "4x1"];

/** A matrix with that share of zeros; rows 0 mod 5 are empty and rows 1 mod 5 full, if told. */
function sparseWeight(
  random: RandomStream,
  [features, depth]: readonly [number, number],
  sparsity: number,
  extremes: boolean,
): Float32Array {
  return Float32Array.from({ length: features * depth }, (_, i) => {
    const row = Math.floor(i / depth);
    const share = extremes && row % 5 === 0 ? 1 : extremes && row % 5 === 1 ? 0 : sparsity;
    return random.uniform() < share ? 0 : random.normal();
  });
}

/** The zeros left out, as a `sparse-bitmask` file has it. */
function leaveOutZeros(weight: Float32Array, [features, depth]: readonly [number, number]): SparseEntries {
  const stride = Math.ceil(depth / 8);
  const bitmask = new Uint8Array(features * stride);
  weight.forEach((value, i) => {
    const [row, column] = [Math.floor(i / depth), i % depth];
    if (value !== 0) bitmask[row * stride + (column >> 3)] |= 1 << (column & 7);
  });
  return { shape: [features, depth], bitmask, values: weight.filter((value) => value !== 0) };
}

const matrices = fc.record({
  features: fc.integer({ min: 1, max: 150 }),
  depth: fc.integer({ min: 1, max: 90 }),
  sparsity: fc.constantFrom(0, 0.3, 0.9, 1),
  extremes: fc.boolean(),
  pattern: fc.constantFrom(...patterns),
  panelInputs: fc.option(fc.integer({ min: 1, max: 100 }), { nil: undefined }),
  blockRows: fc.option(fc.constantFrom(4, 8, 20, 64, 200), { nil: undefined }),
  seed: fc.integer(),
});

Deno.test("unpackSparse gives back what packSparse was given, and its structure counts it", () => {
  fc.assert(
    fc.property(
      matrices,
      ({ features, depth, sparsity, extremes, pattern, panelInputs, blockRows, seed }) => {
        const shape = [features, depth] as const;
        const weight = sparseWeight(new RandomStream(randomKey(seed)), shape, sparsity, extremes);
        const { bytes, structure } = packSparse(weight, shape, { pattern, panelInputs, blockRows });
        assert.deepEqual(unpackSparse(bytes, structure), weight);
        assert.equal(structure.byteLength, bytes.length);
        assert.equal(structure.nnz, weight.filter((value) => value !== 0).length);
        assert.equal(structure.blockEntries.at(-1), structure.storedBlocks);
        if (pattern === "unstructured") assert.equal(structure.storedBlocks, structure.nnz);
        else assert(4 * structure.storedBlocks >= structure.nnz && structure.storedBlocks <= structure.nnz);
        assert.deepEqual(structure, JSON.parse(JSON.stringify(structure)));
      },
    ),
  );
});

Deno.test("packSparseFromEntries gives the bytes of packSparse", () => {
  fc.assert(
    fc.property(
      matrices,
      ({ features, depth, sparsity, extremes, pattern, panelInputs, blockRows, seed }) => {
        const shape = [features, depth] as const;
        const weight = sparseWeight(new RandomStream(randomKey(seed)), shape, sparsity, extremes);
        const options = { pattern, panelInputs, blockRows };
        assert.deepEqual(
          packSparseFromEntries(leaveOutZeros(weight, shape), options),
          packSparse(weight, shape, options),
        );
      },
    ),
  );
});

Deno.test("packSparse stores NaN and leaves out zeros of either sign", () => {
  const { bytes, structure } = packSparse(Float32Array.of(NaN, -0, 0, -Infinity), [2, 2], {
    pattern: "unstructured",
  });
  assert.equal(structure.nnz, 2);
  assert.deepEqual(unpackSparse(bytes, structure), Float32Array.of(NaN, 0, 0, -Infinity));
});

Deno.test("packSparse stores the zeros of a 4x1 block, but no rows beyond the matrix", () => {
  const weight = new Float32Array(6 * 3);
  weight[1 * 3 + 2] = 7;
  weight[5 * 3 + 0] = 9;
  const { bytes, structure } = packSparse(weight, [6, 3], { pattern: "4x1" });
  const visited: number[][] = [];
  forEachStored(bytes, structure, (row, input, value) => visited.push([row, input, value]));
  assert.deepEqual(visited, [[0, 2, 0], [1, 2, 7], [2, 2, 0], [3, 2, 0], [4, 0, 0], [5, 0, 9]]);
  assert.equal(structure.storedBlocks, 2);
});

Deno.test("packing says what does not fit", () => {
  const options = { pattern: "unstructured" } as const;
  assert.throws(() => packSparse(new Float32Array(5), [2, 3], options), {
    name: "InputError",
    message: "Cannot pack 5 weights: wanted 2 × 3",
  });
  assert.throws(() => packSparse(new Float32Array(6), [2, 3], { ...options, panelInputs: 0 }), {
    name: "InputError",
    message: "Cannot pack panels of 0 inputs: wanted 1 to 65535",
  });
  assert.throws(() => packSparse(new Float32Array(6), [2, 3], { ...options, blockRows: 6 }), {
    name: "InputError",
    message: "Cannot pack blocks of 6 rows: wanted a multiple of 4",
  });
  assert.throws(
    () => packSparse(new Float32Array(6), [2, 3], { ...options, blockRows: 400, panelInputs: 4096 }),
    {
      name: "InputError",
      message:
        "Cannot pack blocks of 400 rows in panels of 4096 inputs: their chunks must be countable in 16 bits",
    },
  );
  assert.throws(() => packSparse(new Float32Array(0), [0, 3], options), { name: "InputError" });
  const entries = { shape: [2, 3], bitmask: Uint8Array.of(1, 6), values: new Float32Array(2) } as const;
  assert.throws(() => packSparseFromEntries(entries, options), {
    name: "InputError",
    message: "Cannot pack 2 values: the bitmask has 3 bits",
  });
  assert.throws(() => packSparseFromEntries({ ...entries, bitmask: new Uint8Array(3) }, options), {
    name: "InputError",
    message: "Cannot pack a bitmask of 3 bytes: 2 × 3 wants 2",
  });
});

interface SparseCase {
  readonly shape: readonly [features: number, depth: number];
  readonly pattern: SparsePattern;
  readonly sparsity: number;
  readonly extremes: boolean;
  readonly panelInputs?: number;
  readonly bias: boolean;
  readonly addend: boolean;
  readonly activation: Activation;
}

function sparseInputs(request: SparseCase, columns: number, random: RandomStream) {
  const { shape, pattern, sparsity, extremes, panelInputs, activation } = request;
  const [features, depth] = shape;
  const weight = sparseWeight(random, shape, sparsity, extremes);
  const { bytes, structure } = packSparse(weight, shape, { pattern, panelInputs });
  const x = tiled(depth, columns);
  const bias = request.bias ? rows(features) : undefined;
  const addend = request.addend ? tiled(features, columns) : undefined;
  return {
    attributes: { structure, activation },
    inputTypes: [x, ...packedTypesOf(structure), bias, addend],
    inputs: [
      normals(random, x),
      ...halves({ bytes, structure }),
      bias && normals(random, bias),
      addend && normals(random, addend),
    ],
  };
}

function packedTypesOf(structure: PackedStructure): [ValueType, ValueType] {
  const { values, indices } = packedTypes(structure);
  return [values, indices];
}

/** The two operands that packed bytes hold. */
function halves({ bytes, structure }: PackedWeight): [Float32Array, Uint8Array] {
  const [indicesOffset] = structure.indexOffsets;
  return [new Float32Array(bytes.buffer, 0, indicesOffset / 4), bytes.subarray(indicesOffset)];
}

function sparseCase(request: SparseCase, seed: number): ConformanceCase<SparseMatmulAttributes> {
  const { shape, pattern, sparsity, panelInputs, bias, addend, activation } = request;
  return {
    name: `${shape.join("×")}, ${pattern}, ${sparsity} zeros, panels of ${panelInputs ?? "default"}, ` +
      `${activation}, bias ${bias}, addend ${addend}`,
    seed,
    // f32 rounding of a sum of standard normal products, with room for the two roundings of plain SIMD.
    tolerance: { relative: 1e-6, absolute: 4e-7 * (shape[1] + 2) },
    build: ({ tile, random }) => sparseInputs(request, padColumns(2 * tile + 3, tile), random),
  };
}

Deno.test("sparseMatmul agrees with its reference at awkward sizes", async (t) => {
  const sizes = [1, 2, 3, 5, 17, 33, 64, 100];
  const cases = patterns.flatMap((pattern) =>
    sizes.flatMap((features) =>
      sizes.map((depth, index) =>
        sparseCase({
          shape: [features, depth],
          pattern,
          sparsity: [0.5, 0.9][index % 2],
          extremes: index % 3 === 0,
          bias: index % 4 === 0,
          addend: false,
          activation: "none",
        }, features)
      )
    )
  );
  await conform(t, sparseMatmul, cases);
});

Deno.test("sparseMatmul agrees with its reference for every epilogue, in one panel and in many", async (t) => {
  const flags = [false, true];
  const cases = patterns.flatMap((pattern) =>
    [undefined, 7].flatMap((panelInputs) =>
      flags.flatMap((bias) =>
        flags.flatMap((addend) =>
          (["none", "gelu"] as const).map((activation) =>
            sparseCase({
              shape: [71, 40],
              pattern,
              panelInputs,
              sparsity: 0.8,
              extremes: true,
              bias,
              addend,
              activation,
            }, 7)
          )
        )
      )
    )
  );
  await conform(t, sparseMatmul, cases);
});

Deno.test("sparseMatmul agrees with its reference when everything or nothing is stored", async (t) => {
  const cases = patterns.flatMap((pattern) =>
    [0, 1].map((sparsity) =>
      sparseCase({
        shape: [38, 600],
        pattern,
        sparsity,
        extremes: false,
        bias: true,
        addend: false,
        activation: "none",
      }, 2)
    )
  );
  await conform(t, sparseMatmul, cases);
});

Deno.test("sparseMatmul skips NaN and infinity where no weight is stored, and keeps them where one is", async (t) => {
  const cases = patterns.map((pattern): ConformanceCase<SparseMatmulAttributes> => {
    const request: SparseCase = {
      shape: [13, 20],
      pattern,
      sparsity: 0.7,
      extremes: true,
      bias: false,
      addend: false,
      activation: "none",
    };
    return {
      ...sparseCase(request, 4),
      name: `NaN and infinities, ${pattern}`,
      build({ tile, random }) {
        const columns = 2 * tile;
        const [features, depth] = request.shape;
        const weight = sparseWeight(random, request.shape, request.sparsity, request.extremes);
        weight[2 * depth + 3] = NaN;
        weight[7 * depth + 11] = -Infinity;
        const { bytes, structure } = packSparse(weight, [features, depth], { pattern });
        const x = tiled(depth, columns);
        const values = normals(random, x);
        values[5 * columns + 1] = NaN;
        values[8 * columns + tile] = Infinity;
        return {
          attributes: { structure, activation: "none" },
          inputTypes: [x, ...packedTypesOf(structure), undefined, undefined],
          inputs: [values, ...halves({ bytes, structure }), undefined, undefined],
        };
      },
    };
  });
  await conform(t, sparseMatmul, cases);
});

Deno.test("sparseMatmul names the operands it cannot take", () => {
  const { structure } = packSparse(new Float32Array(12), [3, 4], { pattern: "4x1" });
  const attributes = { structure, activation: "none" } as const;
  const [values, indices] = packedTypesOf(structure);
  for (
    const inputs of [
      [tiled(5, 4), values, indices, undefined, undefined],
      [tiled(4, 4), rows(3, 4), indices, undefined, undefined],
      [tiled(4, 4), values, values, undefined, undefined],
      [tiled(4, 4), values, indices, rows(4), undefined],
      [tiled(4, 4), values, indices, undefined, tiled(4, 4)],
      [tiled(4, 4), values, undefined, undefined, undefined],
      [tiled(4, 4), undefined, indices, undefined, undefined],
      [undefined, values, indices, undefined, undefined],
    ]
  ) {
    assert.throws(
      () => sparseMatmul.infer(inputs, attributes),
      /Cannot apply sparseMatmul: wanted x f32 tiled/,
    );
  }
});

Deno.test("splitBlocks covers every block and tile once, and balances what is stored", () => {
  const grid = fc.record({
    entries: fc.array(fc.nat({ max: 50 }), { minLength: 1, maxLength: 30 }),
    tiles: fc.integer({ min: 1, max: 12 }),
    workers: fc.integer({ min: 1, max: 12 }),
  });
  fc.assert(fc.property(grid, ({ entries, tiles, workers }) => {
    const blockEntries = [0];
    for (const count of entries) blockEntries.push(blockEntries.at(-1)! + count);
    const shares = splitBlocks(blockEntries, tiles, workers);
    assert.equal(shares.length, workers);
    const covered = new Uint8Array(entries.length * tiles);
    for (const { blocks, tiles: range } of shares) {
      for (let block = blocks.begin; block < blocks.end; block++) {
        for (let tile = range.begin; tile < range.end; tile++) covered[block * tiles + tile]++;
      }
    }
    assert(covered.every((count) => count === 1));
  }));
  const shares = splitBlocks([0, 90, 100, 110, 120, 180], 1, 2);
  assert.deepEqual(shares.map(({ blocks }) => blocks), [{ begin: 0, end: 1 }, { begin: 1, end: 5 }]);
});

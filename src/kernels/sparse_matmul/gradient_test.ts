/**
 * Training of a pruned linear layer: its gradients on every machine of this host against plain loops and central
 * differences, and the structures that it needs.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { randomKey, RandomStream } from "../../core/random.ts";
import { indices, rows, tiled, type ValueType } from "../../graph/graph.ts";
import type { NumberArray } from "../../graph/operation.ts";
import { centralDifferences, conform, type ConformanceCase, normals, padColumns } from "../conformance.ts";
import { gatherValuesReference } from "../gather/reference.ts";
import {
  type SparseGradientAttributes,
  sparseMatmulInputGradient,
  sparseMatmulWeightGradient,
} from "./gradient.ts";
import { sparseMatmul } from "./operation.ts";
import { forEachPosition, type SparsePattern, valueCount } from "./pack.ts";
import {
  type Cut,
  putStored,
  takeStored,
  type TrainingStructure,
  trainingStructure,
} from "./training_structure.ts";
import { packedTypes } from "./types.ts";

const patterns: readonly SparsePattern[] = ["unstructured", "4x1"];

interface MaskShape {
  readonly shape: readonly [rows: number, depth: number];
  readonly pattern: SparsePattern;
  /** Share of blocks left out. */
  readonly sparsity: number;
  /** Whether groups of rows 0 mod 5 are empty and groups 1 mod 5 full. */
  readonly extremes: boolean;
}

/** A mask of whole blocks. */
function makeMask(random: RandomStream, { shape, pattern, sparsity, extremes }: MaskShape): Uint32Array {
  const [features, depth] = shape;
  const height = pattern === "4x1" ? 4 : 1;
  const mask = new Uint32Array(Math.ceil(features * depth / 32));
  for (let first = 0; first < features; first += height) {
    const group = first / height % 5;
    const share = extremes && group === 0 ? 1 : extremes && group === 1 ? 0 : sparsity;
    for (let input = 0; input < depth; input++) {
      if (random.uniform() < share) continue;
      for (let row = first; row < Math.min(features, first + height); row++) {
        const bit = row * depth + input;
        mask[bit >>> 5] |= 1 << (bit & 31);
      }
    }
  }
  return mask;
}

function structureOf(random: RandomStream, shape: MaskShape, cut?: Cut): TrainingStructure {
  const [features, depth] = shape.shape;
  const mask = makeMask(random, shape);
  return trainingStructure({ rows: features, depth, mask, pattern: shape.pattern, cut, transposedCut: cut });
}

/** Normal values; those that belong to no row are zero, as the optimiser leaves them. */
function storedValues(random: RandomStream, { positions }: TrainingStructure): Float32Array {
  return Float32Array.from(positions, (position) => position < 0 ? 0 : random.normal());
}

const masks = fc.record({
  shape: fc.tuple(fc.integer({ min: 1, max: 150 }), fc.integer({ min: 1, max: 90 })),
  pattern: fc.constantFrom(...patterns),
  sparsity: fc.constantFrom(0, 0.3, 0.9, 1),
  extremes: fc.boolean(),
  panelInputs: fc.option(fc.integer({ min: 1, max: 100 }), { nil: undefined }),
  blockRows: fc.option(fc.constantFrom(4, 8, 20, 64, 200), { nil: undefined }),
  seed: fc.integer(),
});

Deno.test("trainingStructure places every stored value, and those of the transpose among them", () => {
  fc.assert(fc.property(masks, ({ panelInputs, blockRows, seed, ...shape }) => {
    const random = new RandomStream(randomKey(seed));
    const mask = makeMask(random, shape);
    const [features, depth] = shape.shape;
    const cut = { panelInputs, blockRows };
    const made = trainingStructure({
      rows: features,
      depth,
      mask,
      pattern: shape.pattern,
      cut,
      transposedCut: cut,
    });
    const { structure, positions, transposed } = made;
    assert.equal(positions.length, valueCount(structure));
    const wanted = new Int32Array(positions.length).fill(-1);
    const found = new Uint32Array(mask.length);
    forEachPosition(made.indices, structure, (row, input, position) => {
      const bit = row * depth + input;
      wanted[position] = bit;
      found[bit >>> 5] |= 1 << (bit & 31);
    });
    assert.deepEqual(positions, wanted);
    assert.deepEqual(found, mask);
    assert.equal(transposed !== undefined, shape.pattern === "unstructured");
    if (!transposed) return;
    assert.equal(transposed.structure.rows, depth);
    assert.equal(transposed.structure.depth, features);
    forEachPosition(transposed.indices, transposed.structure, (input, row, position) => {
      assert.equal(positions[transposed.permutation[position]], row * depth + input);
    });
    assert.deepEqual(transposed.permutation.toSorted(), Int32Array.from(positions.keys()));
  }));
});

Deno.test("takeStored and putStored move weights between dense and packed order", () => {
  const random = new RandomStream(randomKey(3));
  for (const pattern of patterns) {
    const shape = [39, 21] as const;
    const made = structureOf(random, { shape, pattern, sparsity: 0.6, extremes: true });
    const values = storedValues(random, made);
    const dense = normals(random, rows(...shape));
    putStored(values, made.positions, dense);
    assert.equal(dense.filter((weight) => weight !== 0).length, made.structure.nnz);
    const found = new Float32Array(values.length).fill(NaN);
    takeStored(dense, made.positions, found);
    assert.deepEqual(found, values);
  }
});

Deno.test("trainingStructure says what mask it cannot take", () => {
  const request = { rows: 6, depth: 3, pattern: "4x1" } as const;
  assert.throws(() => trainingStructure({ ...request, mask: new Uint32Array(2) }), {
    name: "RangeError",
    message: "Cannot pack a mask of 2 words: 6 × 3 wants 1",
  });
  assert.throws(() => trainingStructure({ ...request, mask: Uint32Array.of(0b1001) }), {
    name: "RangeError",
    message: "Cannot train a 4x1 mask of 2 weights: they lie in 1 blocks, wanted whole blocks",
  });
  for (const pattern of patterns) {
    assert.throws(() => trainingStructure({ rows: 3, depth: 5, pattern, mask: Uint32Array.of(1 << 15) }), {
      name: "RangeError",
      message: "Cannot pack a mask that keeps weight 15: 3 × 5 wants numbers below 15",
    });
  }
});

interface GradientCase extends MaskShape {
  readonly cut?: Cut;
  readonly addend?: boolean;
  readonly tiles?: number;
}

function describe({ shape, pattern, sparsity, cut, addend }: GradientCase): string {
  return `${shape.join("×")}, ${pattern}, ${sparsity} zeros, panels of ${cut?.panelInputs ?? "default"}` +
    (addend ? ", addend" : "");
}

function weightCase(request: GradientCase, seed: number): ConformanceCase<SparseGradientAttributes> {
  const { shape: [features, depth], tiles = 2 } = request;
  return {
    name: describe(request),
    seed,
    // f32 rounding of a sum of standard normal products, with room for the two roundings of plain SIMD.
    tolerance: { relative: 1e-6, absolute: 4e-7 * 128 * tiles },
    build({ tile, random }) {
      const { structure, indices } = structureOf(random, request, request.cut);
      const columns = padColumns(tiles * tile + 3, tile);
      const inputTypes = [tiled(features, columns), tiled(depth, columns), packedTypes(structure).indices];
      const inputs = [normals(random, inputTypes[0]), normals(random, inputTypes[1]), indices];
      return { attributes: { structure }, inputTypes, inputs };
    },
  };
}

function inputCase(request: GradientCase, seed: number): ConformanceCase<SparseGradientAttributes> {
  const { shape: [features, depth], tiles = 2 } = request;
  return {
    name: describe(request),
    seed,
    tolerance: { relative: 1e-6, absolute: 4e-7 * (features + 2) },
    build({ tile, random }) {
      const made = structureOf(random, request, request.cut);
      const { structure } = made;
      const types = packedTypes(structure);
      const columns = padColumns(tiles * tile + 3, tile);
      const gradY = tiled(features, columns);
      const addend = request.addend ? tiled(depth, columns) : undefined;
      return {
        attributes: { structure },
        inputTypes: [gradY, types.values, types.indices, addend],
        inputs: [
          normals(random, gradY),
          storedValues(random, made),
          made.indices,
          addend && normals(random, addend),
        ],
      };
    },
  };
}

/** Awkward sizes, panels of every kind, nothing and everything stored. */
const gradientCases: readonly GradientCase[] = patterns.flatMap((pattern): GradientCase[] => [
  ...[1, 2, 3, 5, 17, 33].flatMap((features) =>
    [1, 3, 18, 40].map((depth, index): GradientCase => ({
      shape: [features, depth],
      pattern,
      sparsity: [0.5, 0.9][index % 2],
      extremes: index % 3 === 0,
      addend: features % 2 === 0,
    }))
  ),
  ...[false, true].map((addend): GradientCase => ({
    shape: [71, 40],
    pattern,
    sparsity: 0.7,
    extremes: true,
    cut: { panelInputs: 7, blockRows: 20 },
    addend,
  })),
  ...[0, 1].map((sparsity): GradientCase => ({ shape: [38, 70], pattern, sparsity, extremes: false })),
]);

Deno.test("sparseMatmulWeightGradient agrees with its reference at awkward sizes", async (t) => {
  const cases = gradientCases.map((request, seed) => weightCase(request, seed));
  await conform(t, sparseMatmulWeightGradient, cases);
});

Deno.test("sparseMatmulWeightGradient adds up calls when columns do not fit one", async (t) => {
  // Panels of 4500 inputs: a tile of 32 columns is more than half of what a call takes.
  const cases = patterns.map((pattern) =>
    weightCase({
      shape: [6, 4500],
      pattern,
      sparsity: 0.95,
      extremes: false,
      cut: { panelInputs: 4500, blockRows: 8 },
      tiles: 3,
    }, 1)
  );
  await conform(t, sparseMatmulWeightGradient, cases);
});

Deno.test("sparseMatmulInputGradient agrees with its reference at awkward sizes", async (t) => {
  const cases = gradientCases.map((request, seed) => inputCase(request, seed));
  await conform(t, sparseMatmulInputGradient, cases);
});

Deno.test("the gradient of a value that belongs to no row is zero", () => {
  const made = structureOf(new RandomStream(randomKey(1)), {
    shape: [6, 3],
    pattern: "4x1",
    sparsity: 0,
    extremes: false,
  });
  const { structure } = made;
  const inputTypes = [tiled(6, 4), tiled(3, 4), packedTypes(structure).indices];
  const inputs = [new Float32Array(24).fill(1), new Float32Array(12).fill(1), made.indices];
  const outputTypes = sparseMatmulWeightGradient.infer(inputTypes, { structure });
  const [gradient] = sparseMatmulWeightGradient.reference(inputs, {
    attributes: { structure },
    inputTypes,
    outputTypes,
  });
  assert.deepEqual(gradient, Float32Array.from(made.positions, (position) => position < 0 ? 0 : 4));
  assert.equal(made.positions.filter((position) => position < 0).length, 6);
});

Deno.test("the gradients skip NaN and infinity where no weight is stored, and keep them where one is", async (t) => {
  const withExtremes = (
    one: ConformanceCase<SparseGradientAttributes>,
    change: (inputs: readonly (NumberArray | undefined)[]) => void,
  ): ConformanceCase<SparseGradientAttributes> => ({
    ...one,
    name: `NaN and infinities, ${one.name}`,
    build(request) {
      const built = one.build(request);
      change(built.inputs);
      return built;
    },
  });
  for (const pattern of patterns) {
    const request: GradientCase = { shape: [13, 20], pattern, sparsity: 0.7, extremes: true };
    await conform(t, sparseMatmulWeightGradient, [
      withExtremes(weightCase(request, 4), ([gradY, x]) => {
        gradY![5] = NaN;
        x![40] = Infinity;
      }),
    ]);
    await conform(t, sparseMatmulInputGradient, [
      withExtremes(inputCase(request, 4), ([gradY, values]) => {
        gradY![9] = NaN;
        gradY![gradY!.length - 1] = -Infinity;
        values![3] = Infinity;
      }),
    ]);
  }
});

Deno.test("sparseMatmul's gradient rule agrees with central differences, by either way to the gradient of x", () => {
  for (const pattern of patterns) {
    for (const withTranspose of pattern === "unstructured" ? [false, true] : [false]) {
      const random = new RandomStream(randomKey(9, pattern));
      const request: MaskShape = { shape: [10, 7], pattern, sparsity: 0.5, extremes: true };
      const made = structureOf(random, request, { panelInputs: 4, blockRows: 8 });
      const { structure, positions } = made;
      const transposed = withTranspose ? made.transposed : undefined;
      const types = packedTypes(structure);
      const [x, bias, addend] = [tiled(7, 4), rows(10), tiled(10, 4)];
      const inputTypes: (ValueType | undefined)[] = [x, types.values, types.indices, bias, addend];
      const inputs: (NumberArray | undefined)[] = [
        normals(random, x),
        storedValues(random, made),
        made.indices,
        normals(random, bias),
        normals(random, addend),
      ];
      if (transposed) {
        inputTypes.push(packedTypes(transposed.structure).indices, indices(positions.length));
        inputs.push(transposed.indices, transposed.permutation);
      }
      centralDifferences(sparseMatmul, {
        attributes: { structure, activation: "none", transposed: transposed?.structure },
        inputTypes,
        inputs,
        seed: 5,
      });
    }
  }
});

Deno.test("both ways to the gradient of x give the same", () => {
  const random = new RandomStream(randomKey(11));
  const columns = 6;
  const request: MaskShape = { shape: [33, 50], pattern: "unstructured", sparsity: 0.8, extremes: true };
  const made = structureOf(random, request);
  const { structure, transposed } = made;
  const gradY = Float64Array.from({ length: 33 * columns }, () => random.normal());
  const values = Float64Array.from(storedValues(random, made));
  const types = packedTypes(structure);
  const scattered = sparseMatmulInputGradient.reference([gradY, values, made.indices, undefined], {
    attributes: { structure },
    inputTypes: [tiled(33, columns), types.values, types.indices, undefined],
    outputTypes: [tiled(50, columns)],
  })[0];
  const gathered = gatherValuesReference(values, transposed!.permutation);
  const backward = packedTypes(transposed!.structure);
  const product = sparseMatmul.reference([gradY, gathered, transposed!.indices, undefined, undefined], {
    attributes: { structure: transposed!.structure, activation: "none" },
    inputTypes: [tiled(33, columns), backward.values, backward.indices, undefined, undefined],
    outputTypes: [tiled(50, columns)],
  })[0];
  assert.ok(scattered.every((value, i) => Math.abs(value - product[i]) < 1e-12));
});

Deno.test("sparseMatmul takes the transpose's operands when it is told of a transpose, and only then", () => {
  const random = new RandomStream(randomKey(2));
  const made = structureOf(random, {
    shape: [6, 5],
    pattern: "unstructured",
    sparsity: 0.5,
    extremes: false,
  });
  const { structure } = made;
  const transposed = made.transposed!.structure;
  const types = packedTypes(structure);
  const forward = [tiled(5, 4), types.values, types.indices, undefined, undefined];
  const backward = [packedTypes(transposed).indices, indices(made.positions.length)];
  const plain = { structure, activation: "none" } as const;
  const trained = { ...plain, transposed };
  assert.deepEqual(sparseMatmul.infer(forward, plain), [tiled(6, 4)]);
  assert.deepEqual(sparseMatmul.infer([...forward, ...backward], trained), [tiled(6, 4)]);
  for (
    const [inputs, attributes] of [
      [[...forward, ...backward], plain],
      [forward, trained],
      [[...forward, backward[0]], trained],
      [[...forward, ...backward.toReversed()], trained],
    ] as const
  ) {
    assert.throws(
      () => sparseMatmul.infer(inputs, attributes),
      /Cannot apply sparseMatmul: wanted x f32 tiled/,
    );
  }
});

Deno.test("the gradients name the operands they cannot take", () => {
  const random = new RandomStream(randomKey(2));
  const made = structureOf(random, { shape: [6, 5], pattern: "4x1", sparsity: 0.5, extremes: false });
  const { structure } = made;
  const { values, indices: packed } = packedTypes(structure);
  for (
    const inputs of [[tiled(5, 4), tiled(5, 4), packed], [tiled(6, 4), tiled(5, 8), packed], [tiled(6, 4)]]
  ) {
    assert.throws(
      () => sparseMatmulWeightGradient.infer(inputs, { structure }),
      /Cannot apply sparseMatmulWeightGradient: wanted f32 tiled \[6, C\]/,
    );
  }
  for (
    const inputs of [
      [tiled(5, 4), values, packed],
      [tiled(6, 4), packed, packed],
      [tiled(6, 4), values, packed, tiled(6, 4)],
      [undefined, values, packed],
    ]
  ) {
    assert.throws(
      () => sparseMatmulInputGradient.infer(inputs, { structure }),
      /Cannot apply sparseMatmulInputGradient: wanted f32 tiled \[6, C\]/,
    );
  }
  const gelu = { structure, activation: "gelu" } as const;
  assert.throws(
    () =>
      centralDifferences(sparseMatmul, {
        attributes: gelu,
        inputTypes: [tiled(5, 4), values, packed, undefined, undefined],
        inputs: [new Float32Array(20), storedValues(random, made), made.indices, undefined, undefined],
        seed: 1,
      }),
    /Cannot differentiate sparseMatmul with activation gelu: wanted activation none/,
  );
});

import assert from "node:assert/strict";
import type { RandomStream } from "../../core/random.ts";
import { rows, tiled, type ValueType } from "../../graph/graph.ts";
import type { NumberArray } from "../../graph/operation.ts";
import { centralDifferences, conform, type ConformanceCase, normals, padColumns } from "../conformance.ts";
import { layerNormGradient, layerNormParameterGradient } from "./gradient.ts";
import { layerNorm, type LayerNormAttributes } from "./operation.ts";
import { layerNormReference } from "./reference.ts";
import { chooseStrips, splitStrips } from "./strips.ts";

const epsilon = 1e-12;

interface Shape {
  readonly name: string;
  readonly features: number;
  readonly columns: (tile: number) => number;
}

const shapes: Shape[] = [
  { name: "one feature", features: 1, columns: (tile) => tile },
  { name: "two features", features: 2, columns: (tile) => tile },
  {
    name: "odd feature count, two tiles and a bit",
    features: 37,
    columns: (tile) => padColumns(2 * tile + 3, tile),
  },
  { name: "seven tiles", features: 6, columns: (tile) => 7 * tile },
  { name: "BERT-base width", features: 768, columns: (tile) => tile },
];

// Sums of up to 768 terms round by less than 768 · 2⁻²⁴ of their largest partial sum, typically by its root.
const tolerance = { relative: 3e-6, absolute: 5e-6 };

// Two features may be near each other: 1 / std grows as their sums' rounding (2⁻²⁴ each, near 2) is divided by their
// distance, 0.015 for the closest of these cases.
const closePairTolerance = { relative: 1.6e-5, absolute: 5e-6 };

/** A matrix of unit normals around 3 whose columns named have one special element each. */
function matrixWith(
  special: ReadonlyMap<number, number>,
  random: RandomStream,
  type: ValueType,
): Float32Array {
  const values = normals(random, type).map((value) => value + 3);
  for (const [column, value] of special) values[2 * type.shape[1] + column] = value;
  return values;
}

function forwardCases(training: boolean, withResidual: boolean): ConformanceCase<LayerNormAttributes>[] {
  const make = (
    { name, features, columns }: Shape,
    fill: (random: RandomStream, type: ValueType) => Float32Array,
  ): ConformanceCase<LayerNormAttributes> => ({
    name: `${name}${training ? ", training" : ""}${withResidual ? ", residual" : ""}`,
    seed: features,
    // One feature has no variance: 1 / std is 10⁶ and multiplies a difference of exactly zero.
    tolerance: features === 2 ? closePairTolerance : tolerance,
    build({ tile, random }) {
      const type = tiled(features, columns(tile));
      const residual = withResidual ? normals(random, type) : undefined;
      return {
        attributes: { epsilon, training },
        inputTypes: [type, residual && type, rows(features), rows(features)],
        inputs: [
          fill(random, type),
          residual,
          normals(random, rows(features)),
          normals(random, rows(features)),
        ],
      };
    },
  });
  const wide: Shape = { name: "NaN, infinity and zero columns", features: 24, columns: (tile) => 3 * tile };
  return [
    ...shapes.map((shape) => make(shape, normals)),
    make(wide, (random, type) => {
      const [features, columns] = type.shape;
      const values = matrixWith(new Map([[0, NaN], [3, Infinity], [columns - 1, -Infinity]]), random, type);
      for (let feature = 0; feature < features; feature++) values[feature * columns + 1] = 0;
      return values;
    }),
  ];
}

for (const training of [false, true]) {
  for (const residual of [false, true]) {
    Deno.test(`layerNorm conforms${training ? ", training" : ""}${residual ? ", residual" : ""}`, (t) =>
      conform(t, layerNorm, forwardCases(training, residual)));
  }
}

Deno.test("layerNorm keeps its accuracy when the mean is a hundred times the deviation", (t) =>
  conform(t, layerNorm, [{
    name: "mean 100, deviation 1",
    seed: 5,
    // The mean of 384 numbers near 100 rounds by about 384 · 100 · 2⁻²⁴ at worst, a tenth of that in practice.
    tolerance: { relative: 1e-5, absolute: 3e-4 },
    build({ tile, random }) {
      const type = tiled(384, tile);
      return {
        attributes: { epsilon, training: false },
        inputTypes: [type, undefined, rows(384), rows(384)],
        inputs: [
          normals(random, type).map((value) => value + 100),
          undefined,
          new Float32Array(384).fill(1),
          new Float32Array(384),
        ],
      };
    },
  }]));

/** Operands of the gradients with statistics as the forward pass leaves them, in float32. */
function gradientOperands(
  features: number,
  columns: number,
  random: RandomStream,
  gradY: Float32Array,
): { types: ValueType[]; arrays: NumberArray[]; gamma: Float32Array } {
  const type = tiled(features, columns);
  const gamma = normals(random, rows(features));
  const x = normals(random, type, 2);
  const { summed, statistics } = layerNormReference(x, undefined, gamma, gamma, 1e-5, columns);
  return { types: [type, type, rows(2, columns)], arrays: [gradY, summed, statistics], gamma };
}

function gradientCases(withGamma: boolean): ConformanceCase<Record<string, never>>[] {
  const make = (
    { name, features, columns }: Shape,
    gradOf: (random: RandomStream, type: ValueType) => Float32Array,
    allowed = tolerance,
  ): ConformanceCase<Record<string, never>> => ({
    name,
    seed: features,
    tolerance: allowed,
    build({ tile, random }) {
      const gradY = gradOf(random, tiled(features, columns(tile)));
      const { types, arrays, gamma } = gradientOperands(features, columns(tile), random, gradY);
      return {
        attributes: {},
        inputTypes: withGamma ? [...types, rows(features)] : types,
        inputs: withGamma ? [...arrays, gamma] : arrays,
      };
    },
  });
  const [oneFeature, ...others] = shapes;
  const special: Shape = {
    name: "NaN, infinity and zero columns",
    features: 24,
    columns: (tile) => 3 * tile,
  };
  const cases = [
    // 1 / std is 316 there, and multiplies what is left after cancelling.
    make(oneFeature, normals, { relative: 3e-6, absolute: 3e-4 }),
    ...others.map((shape) => make(shape, normals, { relative: 3e-6, absolute: 2e-5 })),
  ];
  // A sum over columns holds the NaN of any of them, so only the other gradient can keep columns apart.
  return withGamma
    ? [
      ...cases,
      make(special, (random, type) => {
        const [features, columns] = type.shape;
        const values = matrixWith(new Map([[0, NaN], [3, Infinity], [columns - 1, -Infinity]]), random, type);
        for (let feature = 0; feature < features; feature++) values[feature * columns + 1] = 0;
        return values;
      }, { relative: 3e-6, absolute: 2e-5 }),
    ]
    : cases;
}

Deno.test("layerNormGradient conforms", (t) => conform(t, layerNormGradient, gradientCases(true)));

Deno.test("layerNormParameterGradient conforms", (t) =>
  conform(t, layerNormParameterGradient, gradientCases(false)));

Deno.test("layerNorm has the gradient of its reference", () => {
  const type = tiled(5, 4);
  const wave = (length: number, phase: number) =>
    Float64Array.from({ length }, (_, i) => Math.sin(1.7 * i + phase));
  for (const residual of [wave(20, 1), undefined]) {
    centralDifferences(layerNorm, {
      seed: 1,
      attributes: { epsilon: 1e-5, training: true },
      inputTypes: [type, residual && type, rows(5), rows(5)],
      inputs: [wave(20, 0), residual, wave(5, 2), wave(5, 3)],
      tolerance: 1e-6,
    });
  }
});

Deno.test("layerNorm rejects operands that do not fit", () => {
  const attributes = { epsilon, training: false };
  const bad: (ValueType | undefined)[][] = [
    [tiled(4, 8), undefined, rows(4), rows(5)],
    [tiled(4, 8), tiled(4, 16), rows(4), rows(4)],
    [rows(4, 8), undefined, rows(4), rows(4)],
    [tiled(4, 8), undefined, rows(4)],
  ];
  for (const types of bad) assert.throws(() => layerNorm.infer(types, attributes), /Cannot apply layerNorm/);
});

Deno.test("strips cover every column once and start where the tiled layout says", () => {
  const features = 3;
  for (
    const [lanes, tile, columns, workers] of [[4, 32, 96, 2], [8, 24, 48, 3], [16, 64, 64, 3], [4, 4, 28, 5]]
  ) {
    const target = { lanes, tile, workers, vectorRegisters: 16 };
    const strips = chooseStrips(columns, target, { perVector: 2, others: 4 });
    assert.equal(tile % strips.width, 0);
    const shares = splitStrips(strips, features, target);
    assert.equal(shares.length, workers);
    let column = 0;
    for (const share of shares) {
      if (!share) continue;
      assert.equal(share.columnOffset, 4 * column);
      assert.equal(share.stripOffset, 4 * (Math.floor(column / tile) * tile * features + column % tile));
      column += share.strips * strips.width;
    }
    assert.equal(column, columns);
  }
});

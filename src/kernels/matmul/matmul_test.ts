/**
 * The linear layer and its gradients against plain loops, on every machine of this host.
 * @module
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { randomKey, RandomStream } from "../../core/random.ts";
import { rows, tiled, type ValueType } from "../../graph/graph.ts";
import {
  centralDifferences,
  conform,
  type ConformanceCase,
  normals,
  type OperationInputs,
  padColumns,
} from "../conformance.ts";
import { matmulWeightGradient } from "./gradient.ts";
import { matmul, type MatmulAttributes } from "./operation.ts";
import { splitGrid } from "./shares.ts";

const awkwardSizes = [1, 2, 3, 5, 17, 33, 64, 100];

/** f32 rounding of a sum of `terms` standard normal products, with room for the two roundings of plain SIMD. */
function sumTolerance(terms: number): { relative: number; absolute: number } {
  return { relative: 1e-6, absolute: 4e-7 * (terms + 2) };
}

interface MatmulCase extends MatmulAttributes {
  readonly features: number;
  readonly depth: number;
  readonly bias: boolean;
  readonly addend: boolean;
}

function matmulInputs(
  { features, depth, bias, addend, transposed, activation }: MatmulCase,
  columns: number,
  random: RandomStream,
): OperationInputs<MatmulAttributes> {
  const inputTypes: (ValueType | undefined)[] = [
    tiled(depth, columns),
    transposed ? rows(depth, features) : rows(features, depth),
    bias ? rows(features) : undefined,
    addend ? tiled(features, columns) : undefined,
  ];
  return {
    attributes: { transposed, activation },
    inputTypes,
    inputs: inputTypes.map((type) => type && normals(random, type)),
  };
}

function matmulCase(shape: MatmulCase, seed: number): ConformanceCase<MatmulAttributes> {
  const { features, depth, bias, addend, transposed, activation } = shape;
  return {
    name: `${features}×${depth}, transposed ${transposed}, ${activation}, bias ${bias}, addend ${addend}`,
    seed,
    tolerance: sumTolerance(depth),
    build: ({ tile, random }) => matmulInputs(shape, padColumns(2 * tile + 3, tile), random),
  };
}

Deno.test("matmul agrees with its reference at awkward sizes, plain and transposed", async (t) => {
  const cases = awkwardSizes.flatMap((features) =>
    awkwardSizes.map((depth, index) =>
      matmulCase({
        features,
        depth,
        transposed: index % 2 === 1,
        bias: index % 3 === 0,
        addend: false,
        activation: "none",
      }, features)
    )
  );
  await conform(t, matmul, cases);
});

Deno.test("matmul agrees with its reference for every epilogue, in one panel of the depth and in many", async (t) => {
  const flags = [false, true];
  const cases = [33, 1030].flatMap((depth) =>
    flags.flatMap((transposed) =>
      flags.flatMap((bias) =>
        flags.flatMap((addend) =>
          (["none", "gelu"] as const).map((activation) =>
            matmulCase({ features: 15, depth, transposed, bias, addend, activation }, 7)
          )
        )
      )
    )
  );
  await conform(t, matmul, cases);
});

Deno.test("matmul agrees with its reference when the rows take several panels", async (t) => {
  const cases = [false, true].map((transposed) =>
    matmulCase({ features: 1031, depth: 9, transposed, bias: true, addend: true, activation: "none" }, 13)
  );
  await conform(t, matmul, cases);
});

Deno.test("matmul keeps NaN and infinity in their own row or column", async (t) => {
  const shape: MatmulCase = {
    features: 9,
    depth: 13,
    transposed: false,
    activation: "none",
    bias: true,
    addend: true,
  };
  await conform(t, matmul, [{
    ...matmulCase(shape, 3),
    name: "NaN and infinities",
    build({ tile, random }) {
      const columns = 2 * tile;
      const request = matmulInputs(shape, columns, random);
      const [x, weight, bias, addend] = request.inputs;
      x![5 * columns + 1] = NaN;
      x![2 * columns + tile] = Infinity;
      weight![4 * shape.depth] = NaN;
      weight![6 * shape.depth + 3] = -Infinity;
      bias![7] = Infinity;
      addend![8 * columns + 2] = NaN;
      return request;
    },
  }]);
});

Deno.test("matmulWeightGradient agrees with its reference at awkward sizes", async (t) => {
  const cases = awkwardSizes.flatMap((features) =>
    awkwardSizes.map((depth): ConformanceCase<Record<never, never>> => ({
      name: `${features}×${depth}`,
      seed: depth,
      tolerance: sumTolerance(3 * 32),
      build({ tile, random }) {
        const columns = padColumns(2 * tile + 3, tile);
        const inputTypes = [tiled(features, columns), tiled(depth, columns)];
        return { attributes: {}, inputTypes, inputs: inputTypes.map((type) => normals(random, type)) };
      },
    }))
  );
  await conform(t, matmulWeightGradient, cases);
});

Deno.test("matmulWeightGradient agrees with its reference when rows, features and columns take several panels", async (t) => {
  await conform(t, matmulWeightGradient, [{
    name: "791×67",
    seed: 17,
    tolerance: sumTolerance(300),
    build({ tile, random }) {
      const columns = padColumns(260, tile);
      const inputTypes = [tiled(791, columns), tiled(67, columns)];
      return { attributes: {}, inputTypes, inputs: inputTypes.map((type) => normals(random, type)) };
    },
  }]);
});

Deno.test("matmulWeightGradient adds up many panels of columns, and keeps NaN in its row and column", async (t) => {
  await conform(
    t,
    matmulWeightGradient,
    [false, true].map((special) => ({
      name: special ? "NaN and infinities" : "many panels",
      seed: 5,
      tolerance: sumTolerance(600),
      build({ tile, random }) {
        const columns = padColumns(500, tile);
        const inputTypes = [tiled(14, columns), tiled(45, columns)];
        const inputs = inputTypes.map((type) => normals(random, type));
        if (special) {
          inputs[0][3 * columns + 1] = NaN;
          inputs[0][9 * columns + 400] = Infinity;
          inputs[1][7 * columns + 450] = NaN;
        }
        return { attributes: {}, inputTypes, inputs };
      },
    })),
  );
});

Deno.test("the gradient rule of matmul agrees with central differences", () => {
  for (const [features, depth, bias, addend] of [[3, 5, true, true], [4, 2, false, false]] as const) {
    const shape = { features, depth, bias, addend, transposed: false, activation: "none" } as const;
    const random = new RandomStream(randomKey(1, "matmul", features));
    centralDifferences(matmul, { ...matmulInputs(shape, 4, random), seed: 11 });
  }
});

Deno.test("matmul has no gradient rule for transposed weights and activations", () => {
  const refused: readonly MatmulAttributes[] = [
    { transposed: true, activation: "none" },
    { transposed: false, activation: "gelu" },
  ];
  for (const attributes of refused) {
    assert.throws(
      () =>
        centralDifferences(matmul, {
          attributes,
          inputTypes: [tiled(2, 4), rows(2, 2), undefined, undefined],
          inputs: [new Float64Array(8), new Float64Array(4), undefined, undefined],
          seed: 1,
        }),
      /Cannot differentiate matmul with transposed/,
    );
  }
});

Deno.test("matmul names the operands it cannot take", () => {
  const attributes = { transposed: false, activation: "none" } as const;
  const x = tiled(8, 4);
  for (
    const inputs of [
      [x, rows(3, 7), undefined, undefined],
      [x, rows(3, 8), rows(4), undefined],
      [x, rows(3, 8), undefined, tiled(3, 8)],
      [rows(8, 4), rows(3, 8), undefined, undefined],
      [x, undefined, undefined, undefined],
    ]
  ) assert.throws(() => matmul.infer(inputs, attributes), /Cannot apply matmul: wanted x tiled \[K, C\]/);
  assert.throws(() => matmulWeightGradient.infer([x, tiled(8, 8)], {}), /Cannot apply matmulWeightGradient/);
});

Deno.test("splitGrid covers every cell once", () => {
  const size = fc.integer({ min: 1, max: 40 });
  fc.assert(fc.property(
    fc.record({ rows: size, rowGrain: size, columns: size, columnGrain: size, workers: size }),
    (grid) => {
      const covered = new Uint8Array(grid.rows * grid.columns);
      const shares = splitGrid(grid);
      assert.equal(shares.length, grid.workers);
      for (const share of shares) {
        assert.equal(share.rows.begin % grid.rowGrain === 0 || share.rows.begin === grid.rows, true);
        for (let row = share.rows.begin; row < share.rows.end; row++) {
          for (let column = share.columns.begin; column < share.columns.end; column++) {
            covered[row * grid.columns + column]++;
          }
        }
      }
      assert(covered.every((count) => count === 1));
    },
  ));
});

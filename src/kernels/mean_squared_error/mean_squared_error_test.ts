import assert from "node:assert/strict";
import { indices, rows, tiled } from "../../graph/graph.ts";
import { centralDifferences, conform, type ConformanceCase, normals, padColumns } from "../conformance.ts";
import { meanSquaredError, type SquaredErrorAttributes } from "./operation.ts";
import { meanSquaredErrorReference } from "./reference.ts";

interface ErrorCase extends SquaredErrorAttributes {
  readonly outputs: number;
  readonly columns?: number;
  readonly change?: (matrices: Float32Array[], labels: Int32Array) => void;
}

function errorCase(
  name: string,
  { outputs, columns = 5, hardness, change }: ErrorCase,
): ConformanceCase<SquaredErrorAttributes> {
  return {
    name,
    seed: 4,
    // Sums of up to 900 squares.
    tolerance: { relative: 5e-6, absolute: 1e-7 },
    build({ tile, random }) {
      const type = tiled(outputs, padColumns(columns, tile));
      const labels = Int32Array.from({ length: type.shape[1] }, () => random.uniform() < 0.3 ? -1 : 0);
      const matrices = [normals(random, type), normals(random, type), normals(random, type)];
      change?.(matrices, labels);
      const [predictions, targets, teacher] = matrices;
      const taught = hardness !== undefined;
      return {
        attributes: taught ? { hardness } : {},
        inputTypes: [type, indices(labels.length), type, taught ? type : undefined],
        inputs: [predictions, labels, targets, taught ? teacher : undefined],
      };
    },
  };
}

Deno.test("meanSquaredError conforms", (t) =>
  conform(t, meanSquaredError, [
    errorCase("one output", { outputs: 1 }),
    errorCase("forecasts over several tiles", { outputs: 24, columns: 70 }),
    errorCase("shared by the workers", { outputs: 900, columns: 40 }),
    errorCase("no column counts", { outputs: 2, change: (_, labels) => labels.fill(-1) }),
    errorCase("one column counts", { outputs: 2, change: (_, labels) => labels.fill(-1)[2] = 0 }),
    errorCase("NaN and infinities in the padding", {
      outputs: 3,
      hardness: 0.5,
      change(matrices, labels) {
        labels[0] = -1;
        for (const matrix of matrices) {
          matrix.forEach((_, i) => {
            if (labels[i % labels.length] < 0) matrix[i] = [NaN, Infinity, -Infinity][i % 3];
          });
        }
      },
    }),
    errorCase("NaN in a column that counts", {
      outputs: 3,
      change([predictions], labels) {
        labels[0] = 0;
        predictions[0] = NaN;
      },
    }),
    errorCase("a teacher", { outputs: 7, columns: 40, hardness: 0.3 }),
    errorCase("the teacher alone, without targets", {
      outputs: 2,
      hardness: 1,
      change: ([, targets]) => targets.fill(NaN),
    }),
    errorCase("a teacher that is not asked", { outputs: 2, hardness: 0 }),
  ]));

/** [2, 3], of which the middle column does not count. */
const example = {
  predictions: Float64Array.of(1, 9, -0.5, 2, 9, 3),
  labels: Int32Array.of(0, -1, 0),
  targets: Float64Array.of(0, 7, 0.5, 4, 7, 2),
  teacher: Float64Array.of(2, 5, -0.5, 2, 5, 0),
  outputs: 2,
  columns: 3,
};

Deno.test("meanSquaredError has values worked out by hand", () => {
  // Errors 1, −1, −2, 1 from the targets and −1, 0, 0, 3 from the teacher.
  const own = meanSquaredErrorReference(example, 0);
  assert.equal(own.loss, 7 / 4);
  assert.deepEqual([...own.gradPredictions], [0.5, 0, -0.5, -1, 0, 0.5]);
  assert.deepEqual([...own.columnLosses], [2.5, 0, 1]);
  assert.equal(meanSquaredErrorReference(example, 1).loss, 10 / 4);
  assert.equal(meanSquaredErrorReference(example, 0.5).loss, 17 / 8);
});

Deno.test("meanSquaredError has the gradient of its reference", () => {
  const type = tiled(2, 3);
  for (const hardness of [0, 0.25, 1]) {
    // Targets and teacher are constants, which have no gradient: they are bound beforehand.
    const bound: typeof meanSquaredError = {
      ...meanSquaredError,
      infer: ([predictions, labels]) =>
        meanSquaredError.infer([predictions, labels, type, type], { hardness }),
      reference: ([predictions, labels], node) =>
        meanSquaredError.reference([predictions, labels, example.targets, example.teacher], node),
    };
    centralDifferences(bound, {
      seed: 2,
      attributes: { hardness },
      inputTypes: [type, indices(3)],
      inputs: [example.predictions, example.labels],
      upstream: [Float64Array.of(1)],
    });
  }
});

Deno.test("meanSquaredError rejects bad shapes and shares", () => {
  const type = tiled(2, 8);
  assert.throws(
    () => meanSquaredError.infer([type, indices(8), tiled(3, 8)], {}),
    /Cannot apply meanSquaredError: wanted .* found f32 tiled \[2, 8\], i32 rows \[8\], f32 tiled \[3, 8\]/,
  );
  assert.throws(() => meanSquaredError.infer([rows(2, 8), indices(8), rows(2, 8)], {}), /Cannot apply/);
  assert.throws(() => meanSquaredError.infer([type, indices(8), type], { hardness: 0.5 }), /a teacher's/);
  assert.throws(() => meanSquaredError.infer([type, indices(8), type], { hardness: -1 }), /hardness is -1/);
});

/** Label smoothing, class weights and teachers, against the reference, differences and values worked out elsewhere. */
import assert from "node:assert/strict";
import { indices, rows, tiled } from "../../graph/graph.ts";
import { availableMachines } from "../../machines/mod.ts";
import {
  centralDifferences,
  conform,
  type ConformanceCase,
  normals,
  padColumns,
  runOperation,
} from "../conformance.ts";
import { softmaxCrossEntropy } from "./operation.ts";
import { softmaxCrossEntropyReference } from "./reference.ts";
import type { CrossEntropyAttributes } from "./variant.ts";

interface Operands {
  readonly logits: Float32Array;
  readonly labels: Int32Array;
  readonly weights: Float32Array;
  readonly teacher: Float32Array;
  readonly columns: number;
}

interface VariantCase extends CrossEntropyAttributes {
  readonly classes: number;
  readonly columns?: number;
  readonly weighted?: boolean;
  readonly teacher?: boolean;
  readonly change?: (operands: Operands) => void;
}

function variantCase(
  name: string,
  { classes, columns = 5, weighted, teacher, change, ...attributes }: VariantCase,
): ConformanceCase<CrossEntropyAttributes> {
  return {
    name,
    seed: 33,
    // Sums of up to 900 exponentials; a divergence is the small difference of logarithms, times T².
    tolerance: { relative: 1e-5, absolute: 5e-7 * Math.max(1, (attributes.temperature ?? 1) ** 2) },
    build({ tile, random }) {
      const type = tiled(classes, padColumns(columns, tile));
      const width = type.shape[1];
      const operands: Operands = {
        logits: normals(random, type, 2),
        labels: Int32Array.from({ length: width }, () => random.uniform() < 0.3 ? -1 : random.below(classes)),
        weights: Float32Array.from({ length: classes }, () => 0.1 + 2 * random.uniform()),
        teacher: normals(random, type, 2),
        columns: width,
      };
      change?.(operands);
      const { logits, labels, weights } = operands;
      return {
        attributes,
        inputTypes: [type, indices(width), weighted ? rows(classes) : undefined, teacher ? type : undefined],
        inputs: [logits, labels, weighted ? weights : undefined, teacher ? operands.teacher : undefined],
      };
    },
  };
}

/** NaN in every padding column, of the teacher too. */
function spoilPadding({ logits, labels, teacher, columns }: Operands): void {
  labels[0] = -1;
  labels.forEach((label, column) => {
    if (label >= 0) return;
    for (let i = column; i < logits.length; i += columns) logits[i] = teacher[i] = NaN;
  });
}

Deno.test("softmaxCrossEntropy with labels smoothed and classes weighted conforms", (t) =>
  conform(t, softmaxCrossEntropy, [
    variantCase("smoothed", { classes: 3, columns: 40, labelSmoothing: 0.1 }),
    variantCase("smoothed away", { classes: 5, labelSmoothing: 1 }),
    variantCase("weighted", { classes: 4, columns: 40, weighted: true }),
    variantCase("weighted and smoothed", { classes: 7, columns: 40, weighted: true, labelSmoothing: 0.2 }),
    variantCase("NaN in the padding", {
      classes: 3,
      weighted: true,
      labelSmoothing: 0.1,
      change: spoilPadding,
    }),
    variantCase("no label", {
      classes: 3,
      weighted: true,
      labelSmoothing: 0.1,
      change: ({ labels }) => labels.fill(-1),
    }),
    variantCase("labels of no weight", {
      classes: 3,
      weighted: true,
      change: ({ weights }) => weights.fill(0),
    }),
    variantCase("a class of no weight, ruled out", {
      classes: 3,
      weighted: true,
      labelSmoothing: 0.3,
      change({ logits, labels, weights, columns }) {
        labels.fill(1);
        weights[2] = 0;
        logits.fill(-Infinity, 2 * columns);
      },
    }),
    variantCase("shared by the workers", { classes: 900, columns: 40, labelSmoothing: 0.1, weighted: true }),
  ]));

Deno.test("softmaxCrossEntropy with a teacher conforms", (t) =>
  conform(t, softmaxCrossEntropy, [
    variantCase("half the teacher's", {
      classes: 3,
      columns: 40,
      teacher: true,
      hardness: 0.5,
      temperature: 2,
    }),
    variantCase("the teacher's alone", { classes: 2, teacher: true, hardness: 1, temperature: 5.5 }),
    variantCase("everything", {
      classes: 6,
      columns: 40,
      teacher: true,
      weighted: true,
      hardness: 0.3,
      temperature: 0.7,
      labelSmoothing: 0.1,
    }),
    variantCase("a teacher that is not asked", { classes: 3, teacher: true }),
    variantCase("NaN in the padding", {
      classes: 3,
      teacher: true,
      hardness: 0.5,
      change: spoilPadding,
    }),
    variantCase("a student that agrees", {
      classes: 4,
      teacher: true,
      hardness: 1,
      change: ({ logits, teacher }) => teacher.set(logits),
    }),
    variantCase("large logits", {
      classes: 4,
      teacher: true,
      hardness: 0.5,
      temperature: 2,
      change: ({ logits, teacher }) =>
        [logits, teacher].forEach((matrix) => matrix.forEach((value, i) => matrix[i] = 100 * value)),
    }),
    variantCase("a class that both rule out", {
      classes: 3,
      teacher: true,
      hardness: 0.5,
      change({ logits, labels, teacher, columns }) {
        labels.fill(0);
        for (const matrix of [logits, teacher]) matrix.fill(-Infinity, columns, 2 * columns);
      },
    }),
    variantCase("a class that only the student rules out", {
      classes: 3,
      teacher: true,
      hardness: 1,
      change: ({ logits, columns }) => logits.fill(-Infinity, columns, 2 * columns),
    }),
    variantCase("no label", {
      classes: 3,
      teacher: true,
      hardness: 1,
      change: ({ labels }) => labels.fill(-1),
    }),
    variantCase("shared by the workers", {
      classes: 900,
      columns: 70,
      teacher: true,
      hardness: 0.9,
      temperature: 2,
    }),
  ]));

/** Logits [3, 4], of which the last column is padding. */
const example = {
  logits: Float64Array.of(0.5, -1, 2, 9, 1.5, 0.25, -0.5, 9, -2, 3, 0, 9),
  labels: Int32Array.of(1, 0, 2, -1),
  teacherLogits: Float64Array.of(1, -2, 0, 7, 2, 1, -1, 8, -1, 2, 3, 9),
  classes: 3,
  columns: 4,
};
const classWeights = Float64Array.of(0.5, 2, 1.25);

Deno.test("softmaxCrossEntropy has the values of the formulas", () => {
  // Worked out in Python from the definitions of torch.nn.CrossEntropyLoss and of Hinton's loss, without a maximum
  // subtracted, in float64.
  const golden: [CrossEntropyAttributes, boolean, number][] = [
    [{}, false, 2.203622631279961],
    [{ labelSmoothing: 0.1 }, false, 2.1786226312799606],
    [{}, true, 1.4548349101023745],
    [{ labelSmoothing: 0.1 }, true, 1.5063803488868],
    [{ hardness: 0.5, temperature: 2 }, false, 1.5637839308470853],
    [{ hardness: 1, temperature: 5.5 }, false, 0.9368710159552771],
    [{ labelSmoothing: 0.1, hardness: 0.25, temperature: 3 }, true, 1.3686170302692677],
  ];
  for (const [attributes, weighted, wanted] of golden) {
    const operands = weighted ? { ...example, classWeights } : example;
    const { loss, columnLosses } = softmaxCrossEntropyReference(operands, attributes);
    assert.ok(Math.abs(loss - wanted) < 1e-13, `${JSON.stringify(attributes)}: ${loss}, wanted ${wanted}`);
    assert.ok(
      Math.abs(Array.from(columnLosses).reduce((a, b) => a + b) / 3 - wanted) < 1e-13,
      "mean of the columns' losses",
    );
  }
});

Deno.test("softmaxCrossEntropy has the gradient of its reference in every variant", () => {
  const type = tiled(3, 4);
  const variants: [CrossEntropyAttributes, boolean, boolean][] = [
    [{ labelSmoothing: 0.1 }, false, false],
    [{}, true, false],
    [{ labelSmoothing: 0.3 }, true, false],
    [{ hardness: 0.5, temperature: 2 }, false, true],
    [{ hardness: 1, temperature: 5.5 }, true, true],
    [{ hardness: 0.25, temperature: 0.5, labelSmoothing: 0.2 }, true, true],
  ];
  for (const [attributes, weighted, taught] of variants) {
    const teacher = taught ? example.teacherLogits : undefined;
    const weights = weighted ? classWeights : undefined;
    // Teacher and weights are constants: as integers they would not be perturbed, so they are bound beforehand.
    const bound = {
      ...softmaxCrossEntropy,
      infer: ([logits, labels]: Parameters<typeof softmaxCrossEntropy.infer>[0]) =>
        softmaxCrossEntropy.infer([logits, labels, weights && rows(3), teacher && type], attributes),
      reference: (([logits, labels], node) =>
        softmaxCrossEntropy.reference(
          [logits, labels, weights, teacher],
          node,
        )) as typeof softmaxCrossEntropy.reference,
    };
    centralDifferences(bound, {
      seed: 2,
      attributes,
      inputTypes: [type, indices(4)],
      inputs: [example.logits, example.labels],
      upstream: [Float64Array.of(1)],
    });
  }
});

Deno.test("softmaxCrossEntropy of a vocabulary is accurate", () => {
  const [classes, columns] = [30522, 16];
  const logits = Float32Array.from(
    { length: classes * columns },
    (_, i) => 4 * Math.sin(i * 0.7 + (i % 977)),
  );
  const labels = Int32Array.from({ length: columns }, (_, i) => i % 3 ? (i * 7919) % classes : -1);
  const reference = softmaxCrossEntropyReference({
    logits: Float64Array.from(logits),
    labels,
    classes,
    columns,
  });
  const [machine] = availableMachines();
  const [[loss], gradLogits] = runOperation(
    softmaxCrossEntropy,
    {},
    [logits, labels],
    [tiled(classes, columns), indices(columns)],
    { machine, tile: 16, workers: 1 },
  );
  assert.ok(Math.abs(loss - reference.loss) < 2e-5 * reference.loss, `${loss}, wanted ${reference.loss}`);
  const errors = Array.from(
    reference.gradLogits,
    (value, i) => Math.abs(gradLogits[i] - value) / (1e-9 + Math.abs(value)),
  );
  const worst = errors.reduce((a, b) => Math.max(a, b));
  assert.ok(worst < 1e-4, `worst relative error of a gradient: ${worst}`);
});

Deno.test("softmaxCrossEntropy rejects constants and operands that make no sense", () => {
  const type = tiled(3, 8);
  const infer = (
    attributes: CrossEntropyAttributes,
    ...others: Parameters<typeof softmaxCrossEntropy.infer>[0]
  ) => softmaxCrossEntropy.infer([type, indices(8), ...others], attributes);
  assert.throws(() => infer({ hardness: 1.5 }), /hardness is 1.5, wanted a number in \[0, 1\]/);
  assert.throws(() => infer({ labelSmoothing: NaN }), /labelSmoothing is NaN, wanted/);
  assert.throws(() => infer({ temperature: 0 }), /temperature is 0, wanted a positive number/);
  assert.throws(() => infer({ hardness: 0.5 }), /Cannot apply softmaxCrossEntropy: wanted .* found .*/);
  assert.throws(() => infer({}, rows(4)), /class weights f32 rows \[classes\]/);
  assert.throws(() => infer({}, undefined, tiled(4, 8)), /teacher logits as the logits/);
});

import assert from "node:assert/strict";
import type { RandomStream } from "../../core/random.ts";
import { indices, rows, tiled, type ValueType } from "../../graph/graph.ts";
import type { Operation, Target } from "../../graph/operation.ts";
import { availableMachines } from "../../machines/mod.ts";
import { centralDifferences, conform, type ConformanceCase, normals, runOperation } from "../conformance.ts";
import { callKernel, defineKernel } from "../kernel.ts";
import { emitLog } from "./emit_log.ts";
import { softmaxCrossEntropy } from "./operation.ts";

/** Labels, of which about a third are missing. */
function drawLabels(random: RandomStream, classes: number, columns: number): Int32Array {
  return Int32Array.from(
    { length: columns },
    () => random.uniform() < 0.3 ? -1 : random.below(classes),
  );
}

function lossCase(
  name: string,
  classes: number,
  tiles: number,
  change: (logits: Float32Array, labels: Int32Array, columns: number) => void = () => {},
): ConformanceCase<Record<never, never>> {
  return {
    name,
    seed: 21,
    // Sums of up to 1000 exponentials and up to 96 losses, each rounded.
    tolerance: { relative: 5e-6, absolute: 5e-7 },
    build({ tile, random }) {
      const type = tiled(classes, tiles * tile);
      const logits = normals(random, type, 3);
      const labels = drawLabels(random, classes, tiles * tile);
      change(logits, labels, tiles * tile);
      return { attributes: {}, inputTypes: [type, indices(tiles * tile)], inputs: [logits, labels] };
    },
  };
}

Deno.test("softmaxCrossEntropy conforms", (t) =>
  conform(t, softmaxCrossEntropy, [
    lossCase("two classes", 2, 1),
    lossCase("three classes over several tiles", 3, 3),
    lossCase("a thousand classes", 1000, 1),
    lossCase("every column labelled", 5, 2, (_, labels) => labels.forEach((_, i) => labels[i] = i % 5)),
    lossCase("one label", 5, 2, (_, labels) => labels.fill(-1)[1] = 4),
    lossCase("no label", 7, 2, (_, labels) => labels.fill(-1)),
    lossCase("large logits", 4, 1, (logits) => logits.forEach((value, i) => logits[i] = 1000 * value)),
    lossCase("NaN and infinities where there is no label", 3, 2, (logits, labels, columns) => {
      labels.forEach((label, column) => {
        if (label >= 0) return;
        for (let row = 0; row < 3; row++) logits[row * columns + column] = [NaN, Infinity, -Infinity][row];
      });
      labels[0] = -1;
      logits[0] = NaN;
    }),
    lossCase("a class ruled out", 3, 1, (logits, labels, columns) => {
      labels.fill(0);
      logits.fill(-Infinity, columns, 2 * columns);
    }),
    lossCase("NaN in a labelled column", 3, 1, (logits, labels) => {
      labels[0] = 1;
      logits[0] = NaN;
    }),
  ]));

Deno.test("softmaxCrossEntropy has the gradient of its reference", () => {
  for (const labels of [[2, -1, 0, 1, 1, -1], [-1, -1, -1, -1, -1, -1], [3, 3, 3, 3, 3, 3]]) {
    centralDifferences(softmaxCrossEntropy, {
      seed: 2,
      attributes: {},
      inputTypes: [tiled(4, 6), indices(6)],
      inputs: [Float64Array.from({ length: 24 }, (_, i) => Math.sin(i * i)), Int32Array.from(labels)],
      // The loss is the root: its upstream gradient is 1.
      upstream: [Float64Array.of(1)],
    });
  }
});

Deno.test("softmaxCrossEntropy without labels is exactly 0", () => {
  for (const machine of availableMachines()) {
    const [loss, gradLogits] = runOperation(
      softmaxCrossEntropy,
      {},
      [new Float32Array(48).fill(NaN), new Int32Array(16).fill(-1)],
      [tiled(3, 16), indices(16)],
      { machine, tile: 16, workers: 2 },
    );
    assert.deepEqual([...loss, ...gradLogits], new Array(49).fill(0));
  }
});

Deno.test("softmaxCrossEntropy rejects bad shapes", () => {
  assert.throws(
    () => softmaxCrossEntropy.infer([tiled(3, 8), indices(7)], {}),
    /Cannot apply softmaxCrossEntropy: wanted .* found f32 tiled \[3, 8\], i32 rows \[7\]/,
  );
  assert.throws(() => softmaxCrossEntropy.infer([rows(3, 8), indices(8)], {}), /Cannot apply/);
});

/** emitLog as an operation, to run it on every machine. */
const logarithm: Operation<Record<never, never>> = {
  name: "logarithm",
  infer: ([x]) => [x!],
  reference: ([x]) => [Float64Array.from(x as Float64Array, Math.log)],
  lower({ inputs: [x], outputs: [y], target }) {
    const call = callKernel(logarithmKernel, { x: x!.address, y: y.address, count: y.type.shape[0] });
    return [{ name: "logarithm", calls: callsOf(call, target) }];
  },
};

function callsOf<C>(call: C, { workers }: Target): C[][] {
  return Array.from({ length: workers }, (_, worker) => worker === 0 ? [call] : []);
}

const logarithmKernel = defineKernel({
  key: "logarithm_for_tests",
  arguments: { x: "pointer", y: "pointer", count: "integer" },
  emit(vm, args) {
    const [x, y, count, position] = [
      args.pointer("x"),
      args.pointer("y"),
      args.integer("count"),
      vm.integer(),
    ];
    const value = vm.vector();
    vm.forRange(position, 0, count, vm.lanes, () => {
      vm.load(value, x, 0);
      emitLog(vm, value, value);
      vm.store(y, 0, value);
      vm.addInteger(x, x, 4 * vm.lanes);
      vm.addInteger(y, y, 4 * vm.lanes);
    });
    vm.free(x, y, count, position, value);
  },
});

Deno.test("emitLog keeps its stated error from √½ to the largest number", (t) => {
  const type: ValueType = rows(16384);
  const operands = (values: Float32Array) => () => ({ attributes: {}, inputTypes: [type], inputs: [values] });
  const spread = Float32Array.from({ length: 16384 }, (_, i) => Math.SQRT1_2 * 2 ** (i / 127.99) * 1.0000001);
  const nearOne = Float32Array.from({ length: 16384 }, (_, i) => 1 + i * 2 ** -12);
  nearOne.set([Infinity, NaN], 100);
  const tolerance = { relative: 1.2e-7, absolute: 1.2e-7 };
  return conform(t, logarithm, [
    { name: "every size", seed: 1, tolerance, build: operands(spread) },
    { name: "near one, ∞ and NaN", seed: 1, tolerance, build: operands(nearOne) },
  ]);
});

/**
 * The suite must fail where it should: a correct operation, and one broken copy of it per promise.
 * @module
 */
import assert from "node:assert/strict";
import type { VectorMachine } from "../assemblers/vector_machine.ts";
import { elementCount, rows, tiled } from "../graph/graph.ts";
import { type Operation, splitRange } from "../graph/operation.ts";
import { availableMachines, selectMachine } from "../machines/mod.ts";
import {
  centralDifferences,
  conform,
  type ConformanceCase,
  normals,
  padColumns,
  runOperation,
} from "./conformance.ts";
import { callKernel, defineKernel, type KernelCall } from "./kernel.ts";

interface ScaleAttributes {
  readonly factor: number;
}

/** Storage of `count` elements from x to y, times factor; `each` may add a fault to every vector. */
function scaleKernel(key: string, each: (machine: VectorMachine, registers: ScaleRegisters) => void) {
  return defineKernel({
    key,
    arguments: { x: "pointer", y: "pointer", vectors: "integer", factor: "float" },
    emit(machine, args) {
      const x = args.pointer("x");
      const y = args.pointer("y");
      const vectors = args.integer("vectors");
      const factor = args.float("factor");
      const value = machine.vector();
      machine.repeat(vectors, () => {
        machine.load(value, x, 0);
        machine.multiply(value, value, factor);
        each(machine, { x, y, value });
        machine.addInteger(x, x, 4 * machine.lanes);
        machine.addInteger(y, y, 4 * machine.lanes);
      });
      machine.free(x, y, vectors, factor, value);
    },
  });
}

type ScaleRegisters = Record<"x" | "y", ReturnType<VectorMachine["integer"]>> & {
  readonly value: ReturnType<VectorMachine["vector"]>;
};

const correctKernel = scaleKernel("scale", (machine, { y, value }) => machine.store(y, 0, value));

/** y = factor · x, with the given kernel. */
function scaleBy(kernel: typeof correctKernel, changes: Partial<Operation<ScaleAttributes>> = {}) {
  const operation: Operation<ScaleAttributes> = {
    name: "scale",
    infer: ([x]) => [x!],
    reference: ([x], { attributes }) => [x!.map((value) => value * attributes.factor)],
    gradient: ({ graph, node, outputGradients }) =>
      graph.apply(operation, node.attributes, [outputGradients[0]]),
    inPlace: [[0, 0]],
    lower({ attributes, inputs: [x], outputs: [y], target: { workers, lanes } }) {
      const shares = splitRange(elementCount(y.type), workers, lanes);
      return [{
        name: "scale",
        calls: shares.map(({ begin, end }) => [
          callKernel(kernel, {
            x: x!.address + 4 * begin,
            y: y.address + 4 * begin,
            vectors: (end - begin) / lanes,
            factor: attributes.factor,
          }),
        ]),
      }];
    },
    ...changes,
  };
  return operation;
}

const cases: ConformanceCase<ScaleAttributes>[] = [{
  name: "a tile and one column",
  seed: 5,
  tolerance: { relative: 1e-7, absolute: 0 },
  build({ tile, random }) {
    const type = tiled(3, padColumns(tile + 1, tile));
    return { attributes: { factor: 3 }, inputTypes: [type], inputs: [normals(random, type)] };
  },
}];

/** A case whose input is the same number everywhere. */
function filled(value: number): ConformanceCase<ScaleAttributes> {
  return {
    ...cases[0],
    build({ tile }) {
      const type = tiled(3, 2 * tile);
      const x = new Float32Array(elementCount(type)).fill(value);
      return { attributes: { factor: 3 }, inputTypes: [type], inputs: [x] };
    },
  };
}

/** Runs every step at once, as a `Deno.TestContext` would. */
const stepRunner = {
  step(_name: string, run: () => void): Promise<void> {
    run();
    return Promise.resolve();
  },
};

function assertRejected(
  operation: Operation<ScaleAttributes>,
  message: RegExp,
  suite = cases,
): Promise<void> {
  return assert.rejects(() => conform(stepRunner, operation, suite), message);
}

Deno.test("conform accepts a correct operation", (t) => conform(t, scaleBy(correctKernel), cases));

Deno.test("conform names operation, shape, machine, tile, seed, element and both values", async () => {
  const doubled = scaleBy(scaleKernel("scale_twice", (machine, { y, value }) => {
    machine.add(value, value, value);
    machine.store(y, 0, value);
  }));
  const [{ isa, lanes }] = availableMachines();
  await assertRejected(
    doubled,
    new RegExp(
      `scale "a tile and one column" \\[3,${2 * lanes}\\] on ${isa}, tile ${lanes}, seed 5, output 0: ` +
        "element 0 at \\[0, 0\\] is \\S+, wanted \\S+ within",
    ),
  );
});

Deno.test("conform rejects writes past the end, before the start and to inputs", async () => {
  const past = scaleKernel("scale_past", (machine, { y, value }) => {
    machine.store(y, 0, value);
    machine.store(y, 4, value);
  });
  await assertRejected(scaleBy(past), /wrote outside its results: 0 bytes past the end of output 0/);
  const before = scaleKernel("scale_before", (machine, { y, value }) => {
    machine.subtractInteger(y, y, 8);
    machine.store(y, 0, value);
    machine.store(y, 8, value);
    machine.addInteger(y, y, 8);
  });
  await assertRejected(scaleBy(before), /wrote outside its results: \d+ bytes past the end of input 0/);
  const input = scaleKernel("scale_input", (machine, { x, y, value }) => {
    machine.store(y, 0, value);
    machine.store(x, 0, value);
  });
  await assertRejected(scaleBy(input), /wrote outside its results: byte \d+ of input 0, which is read-only/);
});

Deno.test("conform rejects results that were never written or come from unwritten memory", async () => {
  const nothing = scaleKernel("scale_nothing", () => {});
  await assertRejected(scaleBy(nothing), /is NaN from unwritten memory/);
  const shifted = scaleKernel("scale_shifted", (machine, { x, y, value }) => {
    machine.load(value, x, 4);
    machine.store(y, 0, value);
  });
  await assertRejected(scaleBy(shifted), /is NaN from unwritten memory, wanted NaN/, [filled(NaN)]);
});

Deno.test("conform rejects results that change with the number of workers, or workers that overlap", async () => {
  const lower = scaleBy(correctKernel).lower;
  const byWorkers = scaleBy(correctKernel, {
    lower: (placement) =>
      lower({ ...placement, attributes: { factor: placement.target.workers === 2 ? 3.0000002 : 3 } }),
  });
  await assertRejected(byWorkers, /using 2 workers changes element \d+ at \[\d, \d\] from/);
  const overlapping = scaleBy(correctKernel, {
    lower(placement) {
      const [step] = lower({ ...placement, target: { ...placement.target, workers: 1 } });
      return [{ ...step, calls: Array(placement.target.workers).fill(step.calls[0]) }];
    },
  });
  await assertRejected(overlapping, /2 workers: Workers 0 and 1 both write byte \d+ in step 0/);
});

Deno.test("conform rejects a worker that reads what another writes in the same step", async () => {
  // The last vector of y is made from the first one, by the last worker: wrong unless the first worker was faster.
  const chained = scaleBy(correctKernel, {
    lower({ attributes: { factor }, inputs: [x], outputs: [y], target: { workers, lanes } }) {
      const vectors = elementCount(y.type) / lanes - 1;
      const calls = Array.from({ length: workers }, (): KernelCall[] => []);
      calls[0].push(callKernel(correctKernel, { x: x!.address, y: y.address, vectors, factor }));
      calls[workers - 1].push(
        callKernel(correctKernel, { x: y.address, y: y.address + 4 * lanes * vectors, vectors: 1, factor }),
      );
      return [{ name: "chained", calls }];
    },
  });
  await assertRejected(
    chained,
    /2 workers: scale output 0 depends on the order of the workers: element \d+ is Infinity in turn, NaN/,
    [filled(Infinity)],
  );
});

Deno.test("conform rejects an operation that says it works in place and does not", async () => {
  // Reads the neighbour it has already overwritten when input and output are one buffer.
  const twice = scaleKernel("scale_reads_again", (machine, { x, y, value }) => {
    machine.store(y, 0, value);
    const again = machine.vector();
    machine.load(again, x, 0);
    machine.multiply(value, again, again);
    machine.store(y, 0, value);
    machine.free(again);
  });
  const reference: Operation["reference"] = ([x]) => [x!.map((value) => value * value)];
  await assertRejected(
    scaleBy(twice, { reference }),
    /sharing the buffer of input 0 and output 0 changes element 0/,
  );
  await conform(stepRunner, scaleBy(twice, { reference, inPlace: [] }), cases);
});

Deno.test("conform rejects two kernels under one key, and call lists for another number of workers", async () => {
  const impostor = scaleKernel("scale", (machine, { y, value }) => {
    machine.add(value, value, value);
    machine.store(y, 0, value);
  });
  await assertRejected(scaleBy(impostor), /scale: two different kernels have this key/);
  await assertRejected(
    scaleBy(correctKernel, { lower: () => [{ name: "s", calls: [[], [], [], []] }] }),
    /4 call lists/,
  );
});

Deno.test("conform compares NaN and infinities exactly", async () => {
  const withCorners: ConformanceCase<ScaleAttributes> = {
    ...cases[0],
    build({ tile }) {
      const type = tiled(1, tile);
      const x = new Float32Array(tile).fill(1);
      x.set([NaN, Infinity, -Infinity, 3e38]);
      return { attributes: { factor: 3 }, inputTypes: [type], inputs: [x] };
    },
  };
  await conform(stepRunner, scaleBy(correctKernel), [withCorners]);
  const finite: Operation["reference"] = ([x]) => [x!.map((value) => value === Infinity ? 1e38 : value * 3)];
  await assertRejected(scaleBy(correctKernel, { reference: finite }), /element 1 at \[0, 1\] is Infinity/, [
    withCorners,
  ]);
  const infinite: Operation["reference"] = ([x]) => [x!.map(() => Infinity)];
  await assertRejected(
    scaleBy(correctKernel, { reference: infinite }),
    /element 0 at .* is 3, wanted Infinity/,
    [
      filled(1),
    ],
  );
});

Deno.test("runOperation packs and unpacks tiles, and rejects columns that fill no tile", () => {
  const machine = selectMachine("wasm-simd");
  const x = Float32Array.from({ length: 24 }, (_, i) => i);
  const options = { machine, tile: 4, workers: 2 };
  const [y] = runOperation(scaleBy(correctKernel), { factor: 2 }, [x], [tiled(3, 8)], options);
  assert.deepEqual(y, x.map((value) => 2 * value));
  assert.throws(
    () => runOperation(scaleBy(correctKernel), { factor: 2 }, [x.subarray(0, 18)], [tiled(3, 6)], options),
    /scale with 6 columns: tiles have 4/,
  );
  assert.throws(
    () => runOperation(scaleBy(correctKernel), { factor: 2 }, [x], [rows(8)], options),
    /input 0: found 24 elements, wanted 8/,
  );
});

Deno.test("centralDifferences accepts the right gradient rule and rejects wrong, missing and mistyped ones", () => {
  const check = {
    seed: 3,
    attributes: { factor: 3 },
    inputTypes: [rows(2, 3)],
    inputs: [Float64Array.of(1, -2, 3, 0, 5, -6)],
  };
  centralDifferences(scaleBy(correctKernel), check);
  const wrong = scaleBy(correctKernel, {
    gradient: ({ graph, outputGradients }) =>
      graph.apply(scaleBy(correctKernel), { factor: 3.001 }, [outputGradients[0]]),
  });
  assert.throws(
    () => centralDifferences(wrong, check),
    /Gradient of scale, seed 3: element 0 at \[0, 0\] of input 0/,
  );
  assert.throws(
    () => centralDifferences(scaleBy(correctKernel, { gradient: () => [undefined] }), check),
    /is 0 by the rule/,
  );
  const mistyped = scaleBy(correctKernel, {
    infer: () => [rows(6)],
    gradient: ({ outputGradients }) => [outputGradients[0]],
  });
  assert.throws(() => centralDifferences(mistyped, check), /input 0 has another type than its gradient/);
  const none = { ...scaleBy(correctKernel), gradient: undefined };
  assert.throws(() => centralDifferences(none, check), /has no gradient rule/);
});

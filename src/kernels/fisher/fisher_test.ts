import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../../core/random.ts";
import { rows } from "../../graph/graph.ts";
import type { Operation } from "../../graph/operation.ts";
import { availableMachines } from "../../machines/mod.ts";
import { runOperation } from "../run_operation.ts";
import { fisherKernel, type FisherShape } from "./kernel.ts";
import { fisherReference } from "./reference.ts";
import { fisherSteps } from "./steps.ts";

interface Attributes extends FisherShape {
  readonly count: number;
}

/** The step dressed as an operation, so that `runOperation` guards the memory: the sums are operand and result. */
const fisher: Operation<Attributes> = {
  name: "fisher",
  infer: ([sums]) => [sums!],
  reference: () => assert.fail("The reference is fisherReference"),
  lower: ({ attributes, inputs: [, gradients], outputs: [sums], target: { workers } }) =>
    fisherSteps({
      ...attributes,
      ranges: [{ gradients: gradients!.address, fisher: sums.address, blocks: sums.type.shape[0] }],
      workers,
    }),
};

function check(
  blocks: number,
  attributes: Attributes,
  change: (gradients: Float32Array) => void = () => {},
): void {
  const { size, capacity, count, begins } = attributes;
  const random = new RandomStream(randomKey(5, "fisher", Number(begins), blocks, size, capacity, count));
  const sums = Float32Array.from({ length: blocks * size * size }, () => random.normal());
  const gradients = Float32Array.from({ length: blocks * capacity * size }, () => random.normal());
  change(gradients);
  if (begins) sums.fill(NaN);
  const wanted = Float64Array.from(sums);
  fisherReference(wanted, Float64Array.from(gradients), attributes, count);
  const types = [rows(blocks, size * size), rows(blocks, capacity * size)];
  for (const machine of availableMachines()) {
    for (const workers of [1, 2, 3]) {
      const [found] = runOperation(fisher, attributes, [sums, gradients], types, {
        machine,
        tile: machine.lanes,
        workers,
        shared: [0, 0],
      });
      found.forEach((value, index) => {
        const [row, column] = [Math.floor(index / size) % size, index % size];
        if (column > row) return;
        const expected = wanted[index];
        assert.ok(
          Object.is(value, expected) || Number.isNaN(value) && Number.isNaN(expected) ||
            Math.abs(value - expected) <= 4e-6 * (1 + Math.abs(expected)),
          `${machine.isa}, ${workers} workers: block ${
            Math.floor(index / size ** 2)
          } [${row}, ${column}] is ${value}, wanted ${expected}`,
        );
      });
    }
  }
}

Deno.test("sums of outer products agree with their reference, for every block size and any number of gradients", () => {
  for (const size of [16, 32, 48, 64, 80]) {
    for (const begins of [false, true]) check(3, { size, capacity: 4, count: 4, begins });
  }
  check(1, { size: 128, capacity: 1, count: 1, begins: false });
  for (const count of [0, 1, 2, 5]) check(5, { size: 16, capacity: 5, count, begins: count === 0 });
});

Deno.test("what lies in the room of gradients that are not there does not matter, nor does NaN spread to other places", () => {
  const shape = { size: 16, capacity: 3, count: 2, begins: true };
  check(4, shape, (gradients) => {
    for (let block = 0; block < 4; block++) gradients.fill(NaN, (3 * block + 2) * 16, (3 * block + 3) * 16);
    gradients[3 * 16 + 5] = NaN;
    gradients[2 * 3 * 16 + 1] = Infinity;
  });
});

Deno.test("blocks of all matrices are split between the workers, each block once", () => {
  const ranges = [7, 1, 4].map((blocks, index) => ({
    gradients: (index + 1) << 20,
    fisher: (index + 9) << 20,
    blocks,
  }));
  const [{ calls }] = fisherSteps({ ranges, size: 16, capacity: 2, count: 2, begins: false, workers: 5 });
  assert.equal(calls.length, 5);
  const found = calls.flat().map(({ words: [gradients, at, blocks] }) => {
    const range = gradients >> 20;
    const from = (at - ((range + 8) << 20)) / (4 * 16 * 16);
    assert.equal(gradients - (range << 20), from * 4 * 2 * 16);
    return { range, from, blocks };
  });
  ranges.forEach(({ blocks }, index) => {
    let next = 0;
    for (const call of found.filter(({ range }) => range === index + 1)) {
      assert.equal(call.from, next);
      next += call.blocks;
    }
    assert.equal(next, blocks);
  });
});

Deno.test("a block size that is not whole vectors everywhere is refused", () => {
  for (const size of [0, 8, 50, 144, NaN]) {
    assert.throws(() => fisherKernel({ size, capacity: 1, begins: false }), RangeError);
  }
});

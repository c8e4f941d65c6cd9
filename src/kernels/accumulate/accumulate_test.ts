import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../../core/random.ts";
import { rows } from "../../graph/graph.ts";
import type { Operation } from "../../graph/operation.ts";
import { availableMachines } from "../../machines/mod.ts";
import { runOperation } from "../conformance.ts";
import { accumulateSteps } from "./kernel.ts";

/** The steps dressed as an operation on [gradients, sums] in one buffer, so that `runOperation` guards the memory. */
const accumulate: Operation<{ begins: boolean }> = {
  name: "accumulate",
  infer: ([both]) => [both!],
  reference: () => {
    throw new Error("The reference is in this test");
  },
  lower({ attributes: { begins }, inputs: [, scale], outputs: [both], target }) {
    const half = both.type.shape[1];
    const cut = Math.min(half, 70);
    const ranges = [{ address: both.address, count: cut }, {
      address: both.address + 4 * cut,
      count: half - cut,
    }];
    return accumulateSteps({
      ranges,
      distance: 4 * half,
      scale: scale!.address,
      begins,
      workers: target.workers,
    });
  },
};

Deno.test("accumulate adds scaled gradients to their sums, or begins with them", () => {
  const random = new RandomStream(randomKey(3, "accumulate"));
  for (const machine of availableMachines()) {
    for (
      const [count, workers, begins] of [[1, 1, false], [67, 2, true], [517, 3, false], [
        64,
        1,
        true,
      ]] as const
    ) {
      const both = Float32Array.from({ length: 2 * count }, () => random.normal());
      if (begins) both.fill(NaN, count);
      both[0] = Infinity;
      const scale = Math.fround(0.3);
      const [found] = runOperation(accumulate, { begins }, [both, Float32Array.of(scale)], [
        rows(2, count),
        rows(1),
      ], { machine, tile: machine.lanes, workers, shared: [0, 0] });
      for (let i = 0; i < count; i++) {
        const wanted = (begins ? 0 : both[count + i]) + scale * both[i];
        const close = Object.is(found[count + i], wanted) ||
          Math.abs(found[count + i] - wanted) <= 1e-6 * (1 + Math.abs(wanted));
        assert.ok(close, `${machine.isa}, ${count}: sum ${i} is ${found[count + i]}, wanted ${wanted}`);
        assert.equal(found[i], both[i], "gradients are only read");
      }
    }
  }
});

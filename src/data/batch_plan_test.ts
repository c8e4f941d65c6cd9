import assert from "node:assert/strict";
import fc from "fast-check";
import { BatchPlan } from "./batch_plan.ts";
import { planEpoch } from "./batches.ts";

const requests = fc.record({
  lengths: fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 100 }),
  limit: fc.oneof(
    fc.record({ sequences: fc.integer({ min: 1, max: 40 }), tokens: fc.constant(Infinity) }),
    fc.record({ sequences: fc.constant(Infinity), tokens: fc.integer({ min: 1, max: 200 }) }),
  ),
  groupByLength: fc.boolean(),
  seed: fc.nat(),
  epochs: fc.integer({ min: 1, max: 5 }),
});

Deno.test("BatchPlan gives the batches of all epochs one after the other, from any step on", () => {
  fc.assert(
    fc.property(requests, fc.nat(), (request, from) => {
      const plan = new BatchPlan(request);
      const epochs = Array.from({ length: request.epochs }, (_, epoch) => planEpoch({ ...request, epoch }));
      const batches = epochs.flat();
      assert.equal(plan.totalSteps, batches.length);
      for (let step = from % batches.length; step < batches.length; step++) {
        assert.deepEqual(plan.batches(step), [batches[step]]);
      }

      let step = 0;
      assert.equal(plan.endsEpoch(0), false);
      for (const [epoch, own] of epochs.entries()) {
        for (const index of own.keys()) {
          assert.equal(plan.epochsAt(step), epoch + index / own.length);
          step++;
          assert.equal(plan.endsEpoch(step), index === own.length - 1, `step ${step}`);
        }
      }
      assert.equal(plan.epochsAt(step), request.epochs);
      assert.equal(plan.epochBegins.length, request.epochs + 1);
      for (const [epoch, begin] of plan.epochBegins.entries()) assert.equal(plan.epochsAt(begin), epoch);
    }),
  );
});

Deno.test("BatchPlan puts several batches into a step, and none of two epochs", () => {
  fc.assert(
    fc.property(requests, fc.integer({ min: 1, max: 5 }), (request, accumulation) => {
      const [single, several] = [new BatchPlan(request), new BatchPlan({ ...request, accumulation })];
      const steps = Array.from({ length: several.totalSteps }, (_, step) => several.batches(step));
      const batches = Array.from({ length: single.totalSteps }, (_, step) => single.batches(step)[0]);
      assert.deepEqual(steps.flat(), batches);
      let done = 0;
      steps.forEach((step, index) => {
        done += step.length;
        const ends = several.endsEpoch(index + 1);
        assert.equal(ends, single.endsEpoch(done));
        assert.ok(ends || step.length === accumulation);
      });
    }),
  );
});

Deno.test("BatchPlan has the capacity of its largest batches, and no more", () => {
  fc.assert(
    fc.property(requests, (request) => {
      const plan = new BatchPlan(request);
      const { capacity, totalSteps } = plan;
      const batches = Array.from({ length: totalSteps }, (_, step) => plan.batches(step)).flat();
      const tokens = batches.map((batch) => batch.reduce((sum, index) => sum + request.lengths[index], 0));
      assert.deepEqual(capacity, {
        sequences: Math.max(...batches.map((batch) => batch.length)),
        tokens: Math.max(...tokens),
      });
    }),
  );
});

Deno.test("BatchPlan has no step before the first and none after the last", () => {
  const plan = new BatchPlan({
    lengths: [3, 4, 5],
    limit: { sequences: 2, tokens: Infinity },
    groupByLength: false,
    seed: 1,
    epochs: 2,
  });
  assert.equal(plan.totalSteps, 4);
  for (const step of [-1, 0.5, 4, NaN]) {
    assert.throws(() => plan.batches(step), /^RangeError: There is no step .*: wanted one of 0 to 3$/);
  }
});

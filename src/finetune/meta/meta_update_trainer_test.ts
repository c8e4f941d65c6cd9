/** The gradient of the meta-loss on the real trainer, in float32, against differences of the meta-loss itself. */
import assert from "node:assert/strict";
import { presetConfig } from "../../../models/presets.ts";
import { randomKey, RandomStream } from "../../core/random.ts";
import type { EncodedExample } from "../../data/batches.ts";
import { selectMachine } from "../../machines/mod.ts";
import { InlineExecutor } from "../../plan/executor.ts";
import { isDecayed } from "../parameters.ts";
import { classifier } from "../tasks/classification.ts";
import { Trainer } from "../trainer.ts";
import { MetaBuffers } from "./hypothetical_step.ts";
import { metaGradient } from "./meta_update.ts";
import { type MetaObjective, metaOptions } from "./options.ts";
import { ParameterVectors } from "./parameter_vectors.ts";

const config = {
  ...presetConfig("bert-tiny", { vocabularySize: 200, maximumPositions: 16, labels: ["a", "b", "c"] }),
  ...{ hiddenSize: 32, heads: 2, intermediateSize: 64, layers: 2, initializerRange: 0.1 },
};
const told = { learningRate: 2e-3, weightDecay: 0.5 };

function batchOf(number: number): EncodedExample[] {
  const random = new RandomStream(randomKey(4, "batch", number));
  return Array.from({ length: 8 }, () => {
    const ids = Int32Array.from({ length: 2 + random.below(12) }, () => 1 + random.below(199));
    return { ids, typeIds: new Uint8Array(ids.length), label: ids[0] % 3 };
  });
}

Deno.test("metaGradient on the trainer is differences of its meta-loss, to what float32 allows", async () => {
  const trainer = await Trainer.create({
    model: classifier(config),
    machine: selectMachine(),
    workers: 2,
    createExecutor: ({ machine, threads, arena }) =>
      Promise.resolve(new InlineExecutor(machine, threads, arena)),
    maximumSequences: 8,
    maximumTokens: 112,
    seed: 1,
    optimizer: { name: "adamw", beta1: 0.9, beta2: 0.999, epsilon: 1e-6, amsgrad: false },
    maximumNorm: 1,
  });
  try {
    trainer.initialise();
    for (let step = 1; step <= 6; step++) await trainer.step([batchOf(step)], step, told);
    await trainer.settle();
    const vectors = new ParameterVectors(trainer);
    const buffers = new MetaBuffers();
    const pair = (value: number) => new Float64Array(2).fill(value);
    const factors = { alpha: pair(1), beta: pair(1), lambda1: pair(0.5), lambda2: pair(0.5) };
    const run = async (objective: MetaObjective, changed: Partial<typeof factors> = {}) =>
      await metaGradient(trainer, vectors, buffers, {
        batch: batchOf(100),
        loss: await trainer.gradient(batchOf(100)),
        other: () => batchOf(101),
        validation: () => batchOf(102),
        scalars: { clip: 1, beta1: 0.9, beta2: 0.999, epsilon: 1e-6, step: 7 },
        told: ({ name }) => isDecayed(name) ? told : { ...told, weightDecay: 0 },
        groupOf: ({ name }) => isDecayed(name) ? 0 : 1,
        factors: { ...factors, ...changed },
        uncertainties: [0, 0, 0],
        options: metaOptions("sound", { objective }),
      });
    for (const objective of ["loss_decrease", "gradient"] as const) {
      const found = await run(objective);
      for (const [key, group] of [["alpha", 0], ["alpha", 1], ["beta", 0]] as const) {
        // A decay is a small part of a step, so its factor has to change by much to be seen.
        const change = key === "alpha" ? 0.2 : 10;
        const at = async (shift: number) =>
          (await run(objective, { [key]: factors[key].with(group, 1 + shift) })).value;
        const wanted = (await at(change) - await at(-change)) / (2 * change);
        assert.ok(
          Math.abs(found.factors[key][group] - wanted) <= 0.03 * Math.abs(wanted) && wanted !== 0,
          `${objective} by ${key} of group ${group}: ${found.factors[key][group]}, by differences ${wanted}`,
        );
      }
    }
  } finally {
    await trainer.dispose();
  }
});

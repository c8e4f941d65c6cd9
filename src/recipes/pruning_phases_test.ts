import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { parseRecipe } from "./parse.ts";
import { type PrunedRun, pruningPhases } from "./pruning_phases.ts";

const layer = (name: string, sparsity = 0, weights = 100) => ({
  name: `bert.encoder.layer.${name}.weight`,
  weights,
  zeros: sparsity * weights,
  sparsity,
});

const query = layer("0.attention.self.query");
const key = layer("0.attention.self.key");

/** 10 epochs of 20 steps, two matrices. */
const run: PrunedRun = {
  epochBegins: Array.from({ length: 11 }, (_, epoch) => 20 * epoch),
  prunable: [query, key],
};

const phasesOf = (list: string, changes: Partial<PrunedRun> = {}) =>
  pruningPhases(parseRecipe(`modifiers:\n${list}`, { source: "r.yaml" }).modifiers, { ...run, ...changes });

const gradual = (fields: string, name = "GMPruningModifier") => `  - !${name} {${fields}}\n`;

/** Steps and sparsities of all refreshes. */
function refreshes(list: string, changes?: Partial<PrunedRun>): [number, number][] {
  const [{ schedule }] = phasesOf(list, changes);
  return Array.from({ length: 300 }, (_, step) => step).filter((step) => schedule.refreshes(step))
    .map((step) => [step, Number(schedule.sparsity(step).toFixed(4))]);
}

Deno.test("oBERT's recipe refreshes at the epochs and sparsities of SparseML", () => {
  const epochBegins = Array.from({ length: 31 }, (_, epoch) => 10 * epoch);
  const list = gradual(
    "init_sparsity: 0.7, final_sparsity: 0.9, start_epoch: 2, end_epoch: 26, update_frequency: 4.0",
    "OBSPruningModifier",
  );
  const sparsities = [0.7, 0.7843, 0.8407, 0.875, 0.8926, 0.8991, 0.9];
  assert.deepEqual(
    refreshes(list, { epochBegins }),
    sparsities.map((sparsity, index) => [20 + 40 * index, sparsity]),
  );
  const [{ method, scope, pattern, targets }] = phasesOf(list, { epochBegins });
  assert.deepEqual(method, {
    name: "obert",
    gradients: 1024,
    dampening: 1e-7,
    blockSize: 50,
    recomputations: 1,
  });
  assert.deepEqual([scope, pattern, targets], ["global", "unstructured", ["__ALL_PRUNABLE__"]]);
});

Deno.test("an update frequency is in epochs, rounded up to steps; -1, and none, is every step", () => {
  const steps = (fields: string) =>
    refreshes(gradual(`init_sparsity: 0, final_sparsity: 0.5, start_epoch: 1, end_epoch: 2, ${fields}`))
      .map(([step]) => step);
  assert.deepEqual(steps("update_frequency: 0.3"), [20, 26, 32, 38, 40]);
  assert.deepEqual(steps("update_frequency: 0.31"), [20, 27, 34, 40]);
  assert.deepEqual(steps("update_steps: 8"), [20, 28, 36, 40]);
  assert.deepEqual(steps("updates: 2"), [20, 30, 40]);
  const everyStep = Array.from({ length: 21 }, (_, index) => 20 + index);
  assert.deepEqual(steps("update_frequency: -1"), everyStep);
  assert.deepEqual(steps("update_frequency: 0.001"), everyStep);
  assert.deepEqual(steps("exponent: 2, inter_func: polynomial"), everyStep);
});

Deno.test("epochs may be fractions and of unequal length, and the last mask is trained with", () => {
  const list = gradual("init_sparsity: 0, final_sparsity: 0.5, start_epoch: 0.5, end_epoch: -1, updates: 1");
  assert.deepEqual(refreshes(list, { epochBegins: [0, 3, 10] }), [[2, 0], [9, 0.5]]);
  const fractions = gradual(
    "init_sparsity: 0, final_sparsity: 0.5, start_fraction: 0.25, end_fraction: 1, updates: 1",
  );
  assert.deepEqual(refreshes(fractions, { epochBegins: [0, 3, 10] }), [[3, 0], [9, 0.5]]);
});

Deno.test("one-shot pruning is one refresh", () => {
  assert.deepEqual(
    refreshes(gradual("init_sparsity: 0, final_sparsity: 0.5, start_epoch: 3, inter_func: one-shot")),
    [[60, 0.5]],
  );
});

Deno.test("every modifier gives its method and scope", () => {
  const fields = "init_sparsity: 0, final_sparsity: 0.5, mask_type: block4";
  const phase = (name: string, more = "") => {
    const [{ method, scope, pattern }] = phasesOf(gradual(fields + more, name));
    return [method, scope, pattern];
  };
  assert.deepEqual(phase("GMPruningModifier"), [{ name: "magnitude" }, "layer", "1x4"]);
  assert.deepEqual(phase("MagnitudePruningModifier", ", global_sparsity: true")[1], "global");
  assert.deepEqual(phase("GlobalMagnitudePruningModifier"), [{ name: "magnitude" }, "global", "1x4"]);
  const movement = { name: "movement", scoreLearningRate: 0.01 };
  assert.deepEqual(phase("MovementPruningModifier"), [movement, "layer", "1x4"]);
  assert.deepEqual(phase("GMPruningModifier", ", score_type: movement")[0], movement);
  assert.deepEqual(
    phase("MovementPruningModifier", ", soft: true, penalty: 400, score_learning_rate: 0.1")[0],
    { name: "soft-movement", scoreLearningRate: 0.1, penalty: 400, threshold: 0.1 },
  );
  const obert =
    ", num_grads: 8, damp: 1e-3, fisher_block_size: 4, jointly: true, grad_sampler_kwargs: {batch_size: 16}";
  assert.deepEqual(
    phase("OBSPruningModifier", obert)[0],
    { name: "obert", gradients: 8, dampening: 1e-3, blockSize: 4, recomputations: 1, jointly: true },
  );
  const [constant] = phasesOf("  - !ConstantPruningModifier {start_epoch: 2}\n");
  assert.deepEqual(
    [constant.method, constant.schedule.name, constant.schedule.begin],
    [{ name: "constant" }, "constant", 40],
  );
});

Deno.test("a map of final sparsities makes a phase of each", () => {
  const list = gradual(
    "init_sparsity: 0, final_sparsity: {0.5: [re:.*query], 0.8: [re:.*key]}, end_epoch: 5, updates: 4",
  );
  assert.deepEqual(
    phasesOf(list).map(({ targets, schedule }) => [targets, schedule.sparsity(199)]),
    [[["re:.*query"], 0.5], [["re:.*key"], 0.8]],
  );
});

Deno.test("__FROM_PARAM__ is the model's sparsity of each matrix, of all together, or what went before", () => {
  const prunable = [layer("0.attention.self.query", 0.2), layer("0.attention.self.key", 0.5, 200)];
  const from = (fields: string, name?: string) =>
    phasesOf(gradual(`init_sparsity: __FROM_PARAM__, final_sparsity: 0.8, ${fields}`, name), { prunable })
      .map(({ targets, schedule }) => [targets, Number(schedule.sparsity(0).toFixed(9))]);
  assert.deepEqual(from("updates: 1"), [[[prunable[0].name], 0.2], [[prunable[1].name], 0.5]]);
  assert.deepEqual(from("updates: 1, params: [re:.*query]"), [[["re:.*query"], 0.2]]);
  assert.deepEqual(from("updates: 1", "GlobalMagnitudePruningModifier"), [[["__ALL_PRUNABLE__"], 0.4]]);
  const [, second] = phasesOf(
    gradual("init_sparsity: 0, final_sparsity: 0.6, end_epoch: 2") +
      gradual("init_sparsity: __FROM_PARAM__, final_sparsity: 0.8, start_epoch: 3"),
    { prunable },
  );
  assert.equal(second.schedule.sparsity(60), 0.6);
});

Deno.test("pruningPhases refuses what contradicts itself or the run, and says which modifier", () => {
  const first = gradual("init_sparsity: 0, final_sparsity: 0.8, end_epoch: 5");
  const cases: [string, string][] = [
    [
      gradual("init_sparsity: 0, final_sparsity: 0.8, end_epoch: 11"),
      "r.yaml, line 2: GMPruningModifier: end_epoch is 11: wanted at most 10, the epochs of the run",
    ],
    [
      gradual("init_sparsity: 0, final_sparsity: 0.8, start_step: 201"),
      "r.yaml, line 2: GMPruningModifier: start_step is 201: wanted at most 200, the steps of the run",
    ],
    [
      gradual("init_sparsity: 0, final_sparsity: 0.8, start_fraction: 0.5, end_epoch: 2"),
      "r.yaml, line 2: GMPruningModifier: it begins at step 100 and ends at step 40: wanted the end after the begin",
    ],
    [
      first + gradual("init_sparsity: 0.8, final_sparsity: 0.9, start_epoch: 4, params: [re:.*key]"),
      `r.yaml, line 3: GMPruningModifier: it prunes ${key.name} from step 80, and r.yaml, line 2: GMPruningModifier until ` +
      "step 100: wanted one modifier at a time",
    ],
    [
      "  - !ConstantPruningModifier {}\n" + first.replace("end_epoch: 5", "start_epoch: 5"),
      `r.yaml, line 3: GMPruningModifier: it prunes ${query.name} from step 100, and r.yaml, line 2: ` +
      "ConstantPruningModifier until step 199: wanted one modifier at a time",
    ],
    [
      first + gradual("init_sparsity: 0.5, final_sparsity: 0.9, start_epoch: 6"),
      `r.yaml, line 3: GMPruningModifier: init_sparsity is 0.5 where r.yaml, line 2: GMPruningModifier leaves ` +
      `${query.name} at 0.8: wanted at least 0.8`,
    ],
    [
      first + gradual("init_sparsity: 0, final_sparsity: 0.5, start_epoch: 6, inter_func: one-shot"),
      `r.yaml, line 3: GMPruningModifier: final_sparsity is 0.5 where r.yaml, line 2: GMPruningModifier leaves ` +
      `${query.name} at 0.8: wanted at least 0.8`,
    ],
    [
      gradual("init_sparsity: 0, final_sparsity: 0.8, params: [re:.*value]"),
      "r.yaml, line 2: GMPruningModifier: Pruning target re:.*value matches no weight: wanted one of " +
      `${query.name}, ${key.name}`,
    ],
    [
      gradual(
        "init_sparsity: 0, final_sparsity: 0.8, grad_sampler_kwargs: {batch_size: 8}",
        "OBSPruningModifier",
      ),
      "r.yaml, line 2: OBSPruningModifier: batch_size of grad_sampler_kwargs is 8: wanted 16, the one size there is",
    ],
    [
      gradual("init_sparsity: 0, final_sparsity: 0.8, fisher_block_size: 1000", "OBSPruningModifier"),
      "r.yaml, line 2: OBSPruningModifier: Cannot prune by oBERT: blockSize is 1000, wanted a whole number from 1 to 128",
    ],
  ];
  for (const [list, message] of cases) assert.throws(() => phasesOf(list), new InputError(message));
  const sparse = { prunable: [layer("0.attention.self.query", 0.9), key] };
  assert.throws(
    () => phasesOf(gradual("init_sparsity: __FROM_PARAM__, final_sparsity: 0.8"), sparse),
    new InputError(
      `r.yaml, line 2: GMPruningModifier: final_sparsity is 0.8 where the model leaves ${query.name} at 0.9: ` +
        "wanted at least 0.9",
    ),
  );
  assert.equal(phasesOf(gradual("init_sparsity: 0, final_sparsity: 0.8"), sparse).length, 1);
});

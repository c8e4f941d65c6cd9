/** Targets of phases, and phases that cannot be. */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { bertGolden } from "../graph/golden/mod.ts";
import { obertDefaults } from "./obert/options.ts";
import { checkPhases, type PruningPhase } from "./phase.ts";
import { constantSchedule, pruningSchedule } from "./schedule.ts";
import { isPrunable } from "./sparsity.ts";
import { allPrunable, matchTargets } from "./targets.ts";

const parameters = bertGolden().parameters;
const names = parameters.map(({ name }) => name);
const layer = (index: number) => `bert.encoder.layer.${index}`;

Deno.test("matchTargets takes names of weights and modules, expressions, and all, each weight once", () => {
  const query = `${layer(0)}.attention.self.query`;
  assert.deepEqual(matchTargets([`${query}.weight`, query], names), [`${query}.weight`]);
  assert.deepEqual(matchTargets([allPrunable, query], names), names.filter(isPrunable));
  assert.deepEqual(
    matchTargets([String.raw`re:.*\.1\..*dense$`], names),
    names.filter((name) => isPrunable(name) && /\.1\..*dense\.weight$/.test(name)),
  );
  // An expression matches biases and LayerNorm too, and takes what is prunable.
  assert.equal(matchTargets([`re:${layer(1)}`], names).length, 6);
  // Alternatives are all anchored.
  assert.deepEqual(matchTargets([`re:nothing|${query}`], names), [`${query}.weight`]);
});

Deno.test("matchTargets refuses targets that match nothing, or nothing prunable, and names some that there are", () => {
  const first = names.filter(isPrunable).slice(0, 3).join(", ");
  const refused = {
    "encoder.layer.0": `matches no weight: wanted one of ${first}, … (12 in all)`,
    // Python's re.match begins at the beginning.
    "re:attention": `matches no weight: wanted one of ${first}, … (12 in all)`,
    "bert.embeddings.word_embeddings":
      `matches bert.embeddings.word_embeddings.weight, which is not prunable: wanted one of ${first}, … (12 in all)`,
    "re:.*LayerNorm":
      `matches bert.embeddings.LayerNorm.bias, which is not prunable: wanted one of ${first}, … (12 in all)`,
  };
  const sorted = names.toSorted();
  for (const [target, message] of Object.entries(refused)) {
    assert.throws(
      () =>
        matchTargets([target], [...sorted.filter((name) => !isPrunable(name)), ...names.filter(isPrunable)]),
      new InputError(`Pruning target ${target} ${message}`),
    );
  }
  assert.throws(
    () => matchTargets(["re:("], names),
    /^InputError: Pruning target re:\( is no regular expression/,
  );
  assert.throws(() => matchTargets([], names), /^InputError: Pruning has no targets/);
  assert.throws(
    () => matchTargets([allPrunable], ["classifier.weight"]),
    /wanted a model with encoder layers/,
  );
});

const ramp = (begin: number, end: number, finalSparsity = 0.9) =>
  pruningSchedule("cubic", { initialSparsity: 0, finalSparsity, begin, end, every: 1 });

const phase = (changes: Partial<PruningPhase> = {}): PruningPhase => ({
  method: { name: "magnitude" },
  pattern: "unstructured",
  scope: "layer",
  targets: [allPrunable],
  schedule: ramp(0, 10),
  ...changes,
});

Deno.test("checkPhases takes phases on different matrices at once, and on one matrix after each other", () => {
  checkPhases([], parameters);
  checkPhases([
    phase({ targets: [`re:${layer(0)}`] }),
    phase({ targets: [`re:${layer(1)}`], pattern: "2:4", schedule: ramp(5, 20, 0.5) }),
    phase({ targets: [allPrunable], schedule: ramp(21, 30) }),
  ], parameters);
  checkPhases([
    phase({ method: { name: "constant" }, schedule: constantSchedule(0) }),
    phase({ schedule: ramp(1, 10) }),
  ], parameters);
});

Deno.test("checkPhases refuses what overlaps, does not divide, ends elsewhere or mixes constant with a ramp", () => {
  const query = `${layer(0)}.attention.self.query.weight`;
  const [rows, columns] = parameters.find(({ name }) => name === query)!.shape;
  const obert = { name: "obert", ...obertDefaults } as const;
  checkPhases([phase({ method: obert })], parameters);
  const refused: [PruningPhase[], string][] = [
    [
      [phase({ method: { ...obert, dampening: 0 } })],
      "Cannot prune by oBERT: dampening is 0, wanted a number above 0",
    ],
    [
      [phase(), phase({ targets: [query], schedule: ramp(10, 12) })],
      `Two pruning phases are about ${query}, in steps 0 to 10 and 10 to 12: wanted one at a time`,
    ],
    [
      [phase({ targets: [query], pattern: `[${rows},${columns + 1}]` })],
      `Cannot prune ${query} [${rows}, ${columns}] in the pattern [${rows},${columns + 1}]: ` +
      `wanted inputs in multiples of ${columns + 1}`,
    ],
    [
      [phase({ pattern: "2:4" })],
      "Cannot prune to sparsity 0.9 in the pattern 2:4: wanted 0.5",
    ],
    [
      [phase({ method: { name: "constant" } })],
      "Pruning method constant has the schedule cubic: wanted constant with constant alone",
    ],
    [
      [phase({ schedule: constantSchedule(0) })],
      "Pruning method magnitude has the schedule constant: wanted constant with constant alone",
    ],
  ];
  for (const [phases, message] of refused) {
    assert.throws(() => checkPhases(phases, parameters), new InputError(message));
  }
  assert.throws(() => checkPhases([phase({ targets: ["none"] })], parameters), InputError);
});

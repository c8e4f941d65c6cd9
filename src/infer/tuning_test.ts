/** Measured choices: what is measured, when, and where it is kept. No time is asserted. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { encodeBitmask } from "../checkpoint/sparse_bitmask.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import { availableMachines, selectMachine } from "../machines/mod.ts";
import { InlineExecutor } from "../plan/executor.ts";
import { usualTile } from "../plan/plan.ts";
import type { CacheTarget } from "../kernels/sparse_matmul/blocking.ts";
import { chooseByRule, type PrunedMatrix } from "./choice.ts";
import { chooseByMeasuring, type TunedChoice, type TuningOptions } from "./tuning.ts";
import { tuningFile, type TuningStore } from "./tuning_store.ts";

function matrixOf(rows: number, depth: number, density: number): PrunedMatrix {
  const random = new RandomStream(randomKey(1, "tuning", `${rows}x${depth} ${density}`));
  const weight = Float32Array.from({ length: rows * depth }, () => random.uniform() < density ? 1 : 0);
  const { shape, bitmask, values } = encodeBitmask(weight, [rows, depth]);
  return {
    profile: { pattern: "unstructured", rows, depth, density: values.length / weight.length },
    stored: {
      shape,
      bitmask,
      nonZeros: values.length,
      readValues: (target) => Promise.resolve(target.set(values)),
    },
  };
}

/** A store in memory, and how often something was measured. */
function setUp(options: Partial<TuningOptions> = {}) {
  const stored: Record<string, TunedChoice> = {};
  const counts = { started: 0, ended: 0 };
  const store: TuningStore = {
    read: () => Promise.resolve({ ...stored }),
    write: (_machine, choices) => Promise.resolve(void Object.assign(stored, choices)),
  };
  const machine = options.machine ?? selectMachine();
  const target: CacheTarget = {
    lanes: machine.lanes,
    tile: usualTile(machine.lanes),
    workers: 2,
    levelOneBytes: 48 << 10,
  };
  const all: TuningOptions = {
    machine,
    target,
    store,
    createExecutor: ({ machine, threads, arena }) => {
      counts.started++;
      const executor = new InlineExecutor(machine, threads, arena);
      const dispose = executor.dispose.bind(executor);
      executor.dispose = () => (counts.ended++, dispose());
      return Promise.resolve(executor);
    },
    ...options,
  };
  return { all, stored, counts, target };
}

Deno.test("chooseByMeasuring measures each kind of matrix once, on every machine, and keeps what it found", async () => {
  for (const machine of availableMachines()) {
    const { all, stored, counts } = setUp({ machine });
    const matrices = [
      matrixOf(64, 96, 0.1),
      matrixOf(64, 96, 0.11),
      matrixOf(96, 64, 0.5),
      matrixOf(64, 96, 1),
    ];
    const choices = await chooseByMeasuring(matrices, all);
    assert.equal(choices.length, matrices.length);
    assert.equal(Object.keys(stored).length, 3);
    assert.deepEqual(choices[0].blocking, choices[1].blocking, "of one kind");
    assert.equal(choices[0].kernel, "unstructured", "no dense kernel is tried where a tenth is left");
    assert.match(
      choices[0].reason,
      /^density 0\.\d+; measured panels of \d+, blocks of \d+ \d+ µs, panels/,
    );
    assert.match(choices[2].reason, /dense \d+ µs/);
    // Half full: sparse only if it won on few tokens too.
    assert.equal(choices[2].kernel !== "dense", /on few tokens panels/.test(choices[2].reason));
    assert.equal(choices[3].kernel, "dense");
    assert.deepEqual(counts, { started: 1, ended: 1 });
    assert.deepEqual(await chooseByMeasuring(matrices, all), choices);
    assert.equal(counts.started, 1, "the second load measures nothing");
  }
});

Deno.test("chooseByMeasuring measures one kind at least, and takes the rule for what no time is left for", async () => {
  const { all, stored, target, counts } = setUp({ budgetMs: 0 });
  const matrices = [64, 128, 192].map((rows) => matrixOf(rows, 96, 0.1));
  const rule = chooseByRule(matrices[2].profile, target);
  const choices = await chooseByMeasuring(matrices, all);
  assert.deepEqual(choices[2], { ...rule, reason: `${rule.reason}; not measured: no time left` });
  assert.equal(Object.keys(stored).length, 1);
  await chooseByMeasuring(matrices, all);
  await chooseByMeasuring(matrices, all);
  assert.equal(Object.keys(stored).length, 3);
  assert.deepEqual(counts, { started: 3, ended: 3 });
});

Deno.test("tuningFile keeps machines apart, adds to what is there, and takes damage for absence", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = join(folder, "cache", "tuning.json");
    const store = tuningFile(path);
    const [machine] = availableMachines();
    const other = { ...machine, isa: "another" };
    const choice = (panelInputs: number): TunedChoice => ({
      kernel: "unstructured",
      blocking: { panelInputs, blockRows: 4 },
      evidence: "none",
    });
    assert.deepEqual(await store.read(machine), {});
    await store.write(machine, { a: choice(1) });
    await store.write(machine, { b: choice(2) });
    await store.write(other, { a: choice(3) });
    assert.deepEqual(await store.read(machine), { a: choice(1), b: choice(2) });
    assert.deepEqual(await tuningFile(path).read(other), { a: choice(3) });
    for (
      const damage of ["{", "null", "[]", '{"version":0,"machines":{}}', '{"version":2,"machines":null}']
    ) {
      await Deno.writeTextFile(path, damage);
      assert.deepEqual(await store.read(machine), {}, damage);
    }
    await store.write(machine, { a: choice(4) });
    assert.deepEqual(await store.read(machine), { a: choice(4) });
    // Where nothing can be kept, nothing fails.
    const nowhere = tuningFile(join(path, "below a file", "tuning.json"));
    await nowhere.write(machine, { a: choice(5) });
    assert.deepEqual(await nowhere.read(machine), {});
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

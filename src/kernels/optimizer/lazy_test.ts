/** Lazy steps against dense steps over hundreds of steps: the same bits, on every machine. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { randomKey, RandomStream } from "../../core/random.ts";
import type { Step } from "../../graph/operation.ts";
import { availableMachines, type Machine } from "../../machines/mod.ts";
import { Arena } from "../../plan/arena.ts";
import { InlineExecutor, prepare } from "../../plan/executor.ts";
import { type Plan, planGraph } from "../../plan/plan.ts";
import type { Program } from "../../plan/program.ts";
import { Graph } from "../../graph/graph.ts";
import { DistinctRows } from "../embedding/distinct_rows.ts";
import { catchUpSteps, flushSteps, type LazyTable, StepHistory, updateRowsSteps } from "./lazy.ts";
import { optimizerDefaults, updateRule } from "./optimizers.ts";
import { updateSteps } from "./steps.ts";

// First moments become zero after about a hundred steps.
const rule = updateRule({ name: "adamw", beta1: 0.5, beta2: 0.99, epsilon: 1e-8, amsgrad: false });
const scalarCount = rule.scalars.length;

/** How a table is trained in a test. */
interface Shape {
  readonly rows: number;
  readonly features: number;
  /** Most rows in a batch. */
  readonly capacity: number;
  readonly historyCapacity: number;
  readonly workers: number;
}

function stepsPlan(machine: Machine, workers: number, steps: readonly Step[]): Plan {
  const { lanes, vectorRegisters } = machine;
  return planGraph(new Graph(), {
    target: { lanes, vectorRegisters, tile: lanes, workers },
    bindings: new Map(),
    base: 0,
    epilogue: steps,
  });
}

/** One table trained twice in one arena: by dense steps over all of it, and lazily. */
class Twins {
  readonly history: StepHistory;
  readonly lists: DistinctRows;
  readonly views;
  flushes = 0;
  /** Rows that were brought up to date when their first moments had become zero, and their second ones had not. */
  quietRows = 0;
  #step = 0;

  private constructor(
    readonly shape: Shape,
    readonly random: RandomStream,
    readonly executor: InlineExecutor,
    readonly at: { [name: string]: number },
    readonly programs: { dense: Program; before: Program; after: Program; flush: Program },
  ) {
    const { rows, features, capacity, historyCapacity } = shape;
    const { arena } = executor;
    const matrix = (name: string) => arena.float32(at[name], rows * features);
    this.views = {
      dense: ["w", "m", "v"].map(matrix),
      lazy: ["lazyW", "lazyM", "lazyV"].map(matrix),
      denseGradient: matrix("gradient"),
      rowGradient: arena.float32(at.rowGradient, capacity * features),
      list: arena.int32(at.list, capacity),
      scalars: arena.float32(at.scalars, scalarCount),
      clip: arena.float32(at.clip, 1),
      lastSteps: arena.int32(at.lastSteps, rows),
    };
    this.history = new StepHistory(rule, {
      history: arena.float32(at.history, historyCapacity * scalarCount),
      historyLength: arena.int32(at.historyLength, 1),
    });
    this.lists = new DistinctRows(rows);
  }

  static async create(shape: Shape, machine: Machine, seed: number): Promise<Twins> {
    const { rows, features, capacity, historyCapacity, workers } = shape;
    const random = new RandomStream(randomKey(seed, "lazy"));
    const arena = new Arena(2 ** 21);
    const matrix = 4 * rows * features;
    const sizes = {
      ...{ w: matrix, m: matrix, v: matrix, gradient: matrix, lazyW: matrix, lazyM: matrix, lazyV: matrix },
      ...{ rowGradient: 4 * capacity * features, list: 4 * capacity, lastSteps: 4 * rows },
      ...{ history: 4 * historyCapacity * scalarCount, historyLength: 4, scalars: 64, clip: 4 },
    };
    const at = Object.fromEntries(
      Object.entries(sizes).map(([name, bytes]) => [name, arena.allocate(bytes, name)]),
    );
    const table: LazyTable = {
      weights: at.lazyW,
      firstMoment: at.lazyM,
      secondMoment: at.lazyV,
      rows,
      features,
      lastSteps: at.lastSteps,
      history: at.history,
      historyLength: at.historyLength,
    };
    const list = { address: at.list, capacity };
    const dense = {
      weights: at.w,
      gradients: at.gradient,
      states: [at.m, at.v],
      scalars: at.scalars,
      count: rows * features,
    };
    const executor = new InlineExecutor(machine, workers, arena);
    const program = (steps: Step[]) => prepare(executor, stepsPlan(machine, workers, steps));
    const twins = new Twins(shape, random, executor, at, {
      dense: await program(updateSteps({ rule, ranges: [dense], clip: at.clip, workers })),
      before: await program(catchUpSteps({ table, list, workers })),
      after: await program(
        updateRowsSteps({ table, list, gradients: at.rowGradient, clip: at.clip, workers }),
      ),
      flush: await program(flushSteps({ table, workers })),
    });
    const [w] = twins.views.dense;
    w.forEach((_, index) => w[index] = random.normal());
    twins.views.lazy[0].set(w);
    return twins;
  }

  /** One step of both; about one in eight is skipped, and the learning rate changes all the time. */
  async step(): Promise<void> {
    const { shape: { rows, features, capacity }, random, executor, programs, views, history } = this;
    if (history.isFull) await this.flush();
    const step = ++this.#step;
    const group = {
      learningRate: step === 1 ? 0 : 0.02 * random.uniform(),
      weightDecay: 0.1,
      // As a one-cycle schedule changes it.
      momentum: step % 3 === 0 ? 0.4 + step / 10_000 : undefined,
    };
    // Low rows are common and high ones rare, as words are; the last row never comes.
    const ids = Int32Array.from(
      { length: random.below(capacity) + 1 },
      () => Math.floor((rows - 1) * random.uniform() ** 4),
    );
    const slots = new Int32Array(ids.length);
    const count = this.lists.list(ids, views.list, slots);
    views.denseGradient.fill(0);
    views.rowGradient.fill(0);
    for (let slot = 0; slot < count; slot++) {
      const row = views.rowGradient.subarray(slot * features, (slot + 1) * features);
      // Sizes from one to far below the smallest moment.
      const size = 10 ** -random.below(25);
      row.forEach((_, index) => row[index] = size * random.normal());
      views.denseGradient.set(row, views.list[slot] * features);
    }
    const clip = [1, 1, 0.37 * random.uniform(), 1, NaN, 1, Infinity, 1][random.below(8)];
    views.clip[0] = clip;
    const scalars = rule.scalarsOf(group, step);
    views.scalars.set(scalars);
    history.begin(scalars);

    await executor.run(programs.before);
    this.#checkRows(`before step ${step}`, views.list.subarray(0, count));
    await executor.run(programs.dense);
    await executor.run(programs.after);
    history.end(views.clip[0]);
    this.#checkRows(`after step ${step}`, views.list.subarray(0, count));
  }

  async flush(): Promise<void> {
    const { shape: { rows, features }, views: { lazy: [, m, v], lastSteps }, history } = this;
    for (let row = 0; row < rows; row++) {
      const isZero = (moments: Float32Array) =>
        moments.subarray(row * features, (row + 1) * features).every((value) => value === 0);
      if (lastSteps[row] < history.length && isZero(m) && !isZero(v)) this.quietRows++;
    }
    await this.executor.run(this.programs.flush);
    this.history.clear();
    this.flushes++;
    assert.ok(this.views.lastSteps.every((last) => last === 0));
    this.#checkRows(
      `flush after step ${this.#step}`,
      Array.from({ length: this.shape.rows }, (_, row) => row),
    );
  }

  /** These rows are the same in both, as bits. */
  #checkRows(when: string, rowNumbers: Iterable<number>): void {
    const { features, workers } = this.shape;
    for (const row of rowNumbers) {
      this.views.dense.forEach((dense, part) => {
        const bits = (values: Float32Array) =>
          new Int32Array(values.slice(row * features, (row + 1) * features).buffer);
        assert.deepEqual(
          bits(this.views.lazy[part]),
          bits(dense),
          `${"wmv"[part]} of row ${row} ${when}, ${workers} workers on ${this.executor.machine.isa}`,
        );
      });
    }
  }
}

for (const machine of availableMachines()) {
  Deno.test(`lazy AdamW equals dense AdamW bit for bit over hundreds of steps, ${machine.isa}`, async () => {
    // Features: whole blocks of vectors on every machine, pairs and a rest, less than a vector.
    for (
      const [features, workers, historyCapacity, steps] of [
        [256, 1, 90, 400],
        [77, 2, 700, 700], // More steps are missed than are replayed at a time.
        [3, 3, 90, 300],
        [144, 4, 300, 500],
      ]
    ) {
      const twins = await Twins.create(
        { rows: 60, features, capacity: 12, historyCapacity, workers },
        machine,
        features,
      );
      for (let step = 0; step < steps; step++) {
        await twins.step();
        if (historyCapacity < 100 && twins.random.below(60) === 0) await twins.flush();
      }
      await twins.flush();
      if (historyCapacity < 100) assert.ok(twins.flushes > 3 && twins.quietRows > 0);
      const [w, m, v] = twins.views.lazy;
      const lastRow = (values: Float32Array) => values.subarray(-features);
      assert.ok(lastRow(m).every((value) => value === 0) && lastRow(v).every((value) => value === 0));
      assert.ok(lastRow(w).every((value) => value !== 0), "a row without gradients only decays");
      assert.ok(m.some((value) => value !== 0) && v.some((value) => value !== 0));
    }
  });

  Deno.test(`lazy AdamW survives any order of steps and flushes, ${machine.isa}`, async () => {
    const run = fc.record({
      rows: fc.integer({ min: 2, max: 9 }),
      features: fc.integer({ min: 1, max: 40 }),
      capacity: fc.integer({ min: 1, max: 9 }),
      historyCapacity: fc.integer({ min: 1, max: 6 }),
      workers: fc.integer({ min: 1, max: 4 }),
      seed: fc.nat(),
      actions: fc.array(fc.constantFrom("step", "step", "step", "flush"), { maxLength: 40 }),
    });
    await fc.assert(
      fc.asyncProperty(run, async ({ seed, actions, ...shape }) => {
        const twins = await Twins.create(shape, machine, seed);
        for (const action of actions) await (action === "step" ? twins.step() : twins.flush());
        await twins.flush();
      }),
      { numRuns: 12 },
    );
  });
}

Deno.test("StepHistory forgets skipped steps and refuses to overflow", () => {
  const history = new StepHistory(rule, {
    history: new Float32Array(2 * scalarCount),
    historyLength: new Int32Array(1),
  });
  const scalars = new Float32Array(scalarCount);
  for (const [clip, length] of [[1, 1], [NaN, 1], [Infinity, 1], [0.5, 2]]) {
    history.begin(scalars);
    history.end(clip);
    assert.equal(history.length, length);
  }
  assert.ok(history.isFull);
  assert.throws(() => history.begin(scalars), /the history is full with 2 steps, wanted a flush/);
  history.clear();
  assert.ok(!history.isFull);
});

Deno.test("StepHistory refuses rules whose steps cannot be replayed", () => {
  const views = { history: new Float32Array(70), historyLength: new Int32Array(1) };
  for (const name of ["adam", "sgd", "rmsprop"] as const) {
    assert.throws(
      () => new StepHistory(updateRule(optimizerDefaults(name)), views),
      new RegExp(`Cannot keep a history: ${name} is not lazy, wanted adamw`),
    );
  }
});

Deno.test("flushSteps gives every row to one worker, in steps that end before a pool loses patience", () => {
  const addresses = {
    weights: 0,
    firstMoment: 0,
    secondMoment: 0,
    lastSteps: 0,
    history: 0,
    historyLength: 0,
  };
  for (const [rows, workers] of [[1, 3], [9, 2], [2048, 1], [5000, 4], [30_522, 3]]) {
    const steps = flushSteps({ table: { ...addresses, rows, features: 8 }, workers });
    const flushed: number[] = [];
    for (const { calls } of steps) {
      const before = flushed.length;
      assert.equal(calls.length, workers);
      for (const { kernel, words } of calls.flat()) {
        const [begin, count, stride] = ["begin", "count", "stride"].map((name) =>
          words[Object.keys(kernel.arguments).indexOf(name)]
        );
        for (let i = 0; i < count; i++) flushed.push(begin + i * stride);
      }
      assert.ok(flushed.length - before <= 2048);
    }
    assert.deepEqual(flushed.sort((a, b) => a - b), Array.from({ length: rows }, (_, row) => row));
  }
});

/** The contract of executors, kept by the pool and by the calling thread; then what only threads can do or suffer. */
import assert from "node:assert/strict";
import { InputError } from "../src/core/errors.ts";
import type { Step } from "../src/graph/operation.ts";
import { callKernel, defineKernel, type KernelCall } from "../src/kernels/kernel.ts";
import { availableMachines, type Machine, selectMachine } from "../src/machines/mod.ts";
import { Arena } from "../src/plan/arena.ts";
import { type Executor, type ExecutorFactory, InlineExecutor, prepare } from "../src/plan/executor.ts";
import type { Plan } from "../src/plan/plan.ts";
import { allowedCores } from "./pin.ts";
import { encodeBitmask } from "../src/checkpoint/sparse_bitmask.ts";
import { randomKey, RandomStream } from "../src/core/random.ts";
import { task as packMatrix } from "../src/infer/pack_task.ts";
import { packSparse } from "../src/kernels/sparse_matmul/pack.ts";
import { poolFactory, WorkerPool } from "./pool.ts";
import { SpareThreads } from "./threads.ts";

const factories: Record<string, ExecutorFactory> = {
  WorkerPool: (options) => WorkerPool.create(options),
  InlineExecutor: ({ machine, threads, arena }) =>
    new Promise((resolve) => resolve(new InlineExecutor(machine, threads, arena))),
};

/** target[0] += source[0], as integers. */
const accumulate = defineKernel({
  key: "test_accumulate",
  arguments: { source: "pointer", target: "pointer" },
  emit(machine, args) {
    const source = args.pointer("source");
    const target = args.pointer("target");
    const a = machine.integer();
    const b = machine.integer();
    machine.loadI32(a, source, 0);
    machine.loadI32(b, target, 0);
    machine.addInteger(b, b, a);
    machine.storeI32(target, 0, b);
    machine.free(source, target, a, b);
  },
});

/** A plan of steps of that kernel. */
function planOf(phases: readonly Step[], workers: number): Plan {
  const { lanes, vectorRegisters } = selectMachine();
  return {
    target: { lanes, vectorRegisters, tile: lanes, workers },
    phases,
    kernels: [accumulate as unknown as Plan["kernels"][number]],
    outputs: new Map(),
    buffers: [],
    base: 0,
    activationBytes: 0,
    scratchBytes: 0,
  };
}

const optionsOf = (threads: number, machine: Machine = selectMachine()) => ({
  machine,
  threads,
  arena: new Arena(1 << 16),
});
const poolOf = (threads: number) => WorkerPool.create(optionsOf(threads));

/** A plan that adds the first of two new cells, which is 1, to the second, `times` over, on worker 0. */
function counting({ arena, workers }: Executor, times = 1): { plan: Plan; count(): number } {
  const one = arena.allocate(64, "one");
  const sum = arena.allocate(64, "sum");
  arena.int32(one, 1)[0] = 1;
  arena.int32(sum, 1)[0] = 0;
  const call = callKernel(accumulate, { source: one, target: sum });
  const idle: KernelCall[] = [];
  const step = { name: "count", calls: Array.from({ length: workers }, (_, w) => w === 0 ? [call] : idle) };
  return {
    plan: planOf(Array.from({ length: times }, () => step), workers),
    count: () => arena.int32(sum, 1)[0],
  };
}

for (const [name, create] of Object.entries(factories)) {
  Deno.test(`${name} runs phases in lockstep: each worker reads what its neighbour wrote a phase before`, async () => {
    for (const threads of [1, 2, 3, 5]) {
      const executor = await create(optionsOf(threads));
      try {
        const cells = executor.arena.allocate(threads * 64, "cells");
        const address = (worker: number) => cells + ((worker + threads) % threads) * 64;
        const fromLeft = (worker: number) =>
          callKernel(accumulate, { source: address(worker - 1), target: address(worker) });
        // A ring: without a barrier between the phases the sums would depend on timing.
        const workers = Array.from({ length: threads }, (_, worker) => worker);
        const odd: Step = {
          name: "odd",
          calls: workers.map((w) => w % 2 === 1 || threads === 1 ? [fromLeft(w)] : []),
        };
        const even: Step = {
          name: "even",
          calls: workers.map((w) => w % 2 === 0 && w > 0 ? [fromLeft(w)] : []),
        };
        const phases = Array.from({ length: 100 }, (_, index) => index % 2 ? even : odd);
        const program = await prepare(executor, planOf(phases, threads));
        const words = executor.arena.int32(cells, threads * 16);
        const expected = workers.map((w) => w + 1);
        expected.forEach((value, w) => words[w * 16] = value);
        for (let run = 0; run < 20; run++) {
          await executor.run(program);
          for (const phase of phases) {
            phase.calls.forEach((calls, w) => {
              if (calls.length > 0) expected[w] = (expected[w] + expected[(w - 1 + threads) % threads]) | 0;
            });
          }
        }
        assert.deepEqual(workers.map((w) => words[w * 16]), expected, `${threads} threads`);
      } finally {
        await executor.dispose();
      }
    }
  });

  Deno.test(`${name} queues concurrent runs, and dispose waits for them`, async () => {
    const executor = await create(optionsOf(2));
    const { plan, count } = counting(executor);
    const program = await prepare(executor, plan);
    const runs = Promise.all(Array.from({ length: 200 }, () => executor.run(program)));
    await executor.dispose();
    assert.equal(count(), 200);
    await runs;
  });

  Deno.test(`${name} may be disposed twice, and refuses to link and run after that`, async () => {
    const executor = await create(optionsOf(1));
    const { plan } = counting(executor);
    const program = await prepare(executor, plan);
    await Promise.all([executor.dispose(), executor.dispose()]);
    await executor.dispose();
    await assert.rejects(executor.run(program), /disposed/);
    await assert.rejects(executor.link(plan.kernels), /disposed/);
  });

  Deno.test(`${name} links what it knows already at no cost, and nothing of a set that cannot be assembled`, async () => {
    const machine = selectMachine();
    let assembled = 0;
    const counted = {
      ...machine,
      assemble(kernels: Parameters<Machine["assemble"]>[0]) {
        assembled++;
        return machine.assemble(kernels);
      },
    };
    const executor = await create(optionsOf(2, counted));
    try {
      const broken = defineKernel({
        key: "test_broken",
        arguments: {},
        emit: () => assert.fail("cannot be emitted"),
      });
      const { plan, count } = counting(executor);
      const [kernel] = plan.kernels;
      await assert.rejects(executor.link([broken as unknown as typeof kernel, kernel]), /cannot be emitted/);
      const program = await prepare(executor, plan);
      await executor.run(program);
      assert.equal(count(), 1, "the numbers of kernels are those of linked ones");
      assert.equal(assembled, 2);
      assert.deepEqual([...await executor.link([kernel, kernel])], [[kernel.key, 0]]);
      assert.equal(assembled, 2);
    } finally {
      await executor.dispose();
    }
  });

  Deno.test(`${name} shares an arena with others of its kind`, async () => {
    for (const machine of availableMachines()) {
      const options = optionsOf(1, machine);
      const executors = await Promise.all([create(options), create(options), create(options)]);
      try {
        const counters = executors.map((executor) => counting(executor, 50));
        const programs = await Promise.all(
          executors.map((executor, index) => prepare(executor, counters[index].plan)),
        );
        for (let round = 0; round < 20; round++) {
          await Promise.all(executors.map((executor, index) => executor.run(programs[index])));
        }
        assert.deepEqual(counters.map(({ count }) => count()), [1000, 1000, 1000], machine.isa);
      } finally {
        await Promise.all(executors.map((executor) => executor.dispose()));
      }
    }
  });

  Deno.test(`${name} reports a kernel that traps`, async () => {
    // WebAssembly traps where native code would crash the process.
    const executor = await create(optionsOf(1, selectMachine("wasm")));
    try {
      const outside = 2 ** 31 - 64;
      const call = callKernel(accumulate, { source: outside, target: outside });
      const program = await prepare(executor, planOf([{ name: "trap", calls: [[call]] }], 1));
      await assert.rejects(executor.run(program), /memory access out of bounds/);
    } finally {
      await executor.dispose();
    }
  });

  Deno.test(`${name} refuses zero, negative and fractional threads`, async () => {
    for (const threads of [0, -1, 1.5, NaN]) {
      await assert.rejects(create(optionsOf(threads)), InputError);
    }
  });
}

Deno.test("WorkerPool leaves the event loop free while it runs", async () => {
  const pool = await poolOf(2);
  try {
    const program = await prepare(pool, counting(pool, 2000).plan);
    let ticks = 0;
    const timer = setInterval(() => ticks++, 0);
    for (let run = 0; run < 50; run++) await pool.run(program);
    clearInterval(timer);
    assert.ok(ticks > 0, "no timer fired during 100,000 phases");
  } finally {
    await pool.dispose();
  }
});

Deno.test("WorkerPool names the worker whose kernel traps, and refuses to go on", async () => {
  const pool = await WorkerPool.create(optionsOf(3, selectMachine("wasm")));
  try {
    const outside = 2 ** 31 - 64;
    const call = callKernel(accumulate, { source: outside, target: outside });
    const program = await prepare(
      pool,
      planOf([
        { name: "quiet", calls: [[], [], []] },
        { name: "trap", calls: [[], [call], []] },
        { name: "never", calls: [[], [], []] },
      ], 3),
    );
    await assert.rejects(pool.run(program), /worker 1 failed/);
    await assert.rejects(pool.run(program), /worker 1 failed/);
    await assert.rejects(pool.link([]), /worker 1 failed/);
  } finally {
    await pool.dispose();
  }
});

/** Makes pools whose workers run `body` before what they do anyway. */
async function withWorkersThat(body: string, test: () => Promise<void>): Promise<void> {
  const { Worker } = globalThis;
  globalThis.Worker = class extends Worker {
    constructor(url: string | URL, options?: WorkerOptions) {
      const moduleOf = (source: string) => `data:text/javascript,${encodeURIComponent(source)}`;
      const imports = [moduleOf(body), String(url)].map((each) => `import ${JSON.stringify(each)};`);
      super(moduleOf(imports.join("\n")), options);
    }
  };
  try {
    await test();
  } finally {
    globalThis.Worker = Worker;
  }
}

/** What a worker does when it is asked for something for the second time: the first call is setting it up. */
const atSecondCall = (deed: string) =>
  `let calls = 0;
  addEventListener("message", () => { if (self.name === "lacuna-1" && ++calls === 2) ${deed} });`;

Deno.test("WorkerPool says so when a worker dies, at its start or later, and does not hang", async () => {
  await withWorkersThat(`throw new Error("no memory left")`, async () => {
    await assert.rejects(poolOf(2), /^Error: Cannot run: worker \d died: .*no memory left/);
  });
  const cases = [[`throw new Error("hit")`, /worker 1 died: .*hit/], [
    "close()",
    /worker 1 died: no sign of life/,
  ]];
  for (const [deed, message] of cases as [string, RegExp][]) {
    await withWorkersThat(atSecondCall(deed), async () => {
      const arena = new Arena(1 << 16);
      const pool = await WorkerPool.create({ machine: selectMachine(), threads: 2, arena, silenceMs: 4000 });
      try {
        const cell = pool.arena.allocate(64, "cell");
        const call = callKernel(accumulate, { source: cell, target: cell });
        const plan = planOf([{ name: "one", calls: [[call], [call]] }], 2);
        const attempt = async () => await pool.run(await prepare(pool, plan));
        await assert.rejects(attempt(), message);
        await assert.rejects(attempt(), message, "the pool stays failed");
      } finally {
        await pool.dispose();
      }
    });
  }
});

Deno.test("WorkerPool names a worker that vanishes without a word, whatever it is waited for", async () => {
  // `terminate` and `close` send no event: only the missing signs of life tell.
  const vanished = /^Error: Cannot run: worker 1 died: no sign of life for 4000 ms/;
  const vanishAtMessage = (count: number) =>
    `let calls = 0;
     addEventListener("message", (event) => {
       if (self.name !== "lacuna-1" || ++calls < ${count}) return;
       event.stopImmediatePropagation();
       close();
     });`;
  const attempt = async () => {
    const pool = await WorkerPool.create({ ...optionsOf(2), silenceMs: 4000 });
    try {
      await pool.run(await prepare(pool, counting(pool).plan));
    } finally {
      await pool.dispose();
    }
  };
  for (const message of ["to set up", "to link", "to serve"].keys()) {
    await withWorkersThat(vanishAtMessage(message + 1), () => assert.rejects(attempt(), vanished));
  }
});

Deno.test("WorkerPool names a worker that was terminated while it served", async () => {
  const { Worker } = globalThis;
  const made: Worker[] = [];
  globalThis.Worker = class extends Worker {
    constructor(...args: ConstructorParameters<typeof Worker>) {
      super(...args);
      made.push(this);
    }
  };
  const pool = await WorkerPool.create({ ...optionsOf(2), silenceMs: 4000 })
    .finally(() => globalThis.Worker = Worker);
  try {
    const program = await prepare(pool, counting(pool).plan);
    await pool.run(program);
    made[1].terminate();
    // Deno ends a worker at its event loop only: while it serves it goes on, and then it is gone.
    await pool.run(program);
    const other = defineKernel({ ...accumulate, key: "test_other" }) as unknown as Plan["kernels"][number];
    const pending = [pool.link([other]), pool.run(program)];
    for (const call of pending) await assert.rejects(call, /worker 1 died: no sign of life/);
    await assert.rejects(pool.run(program), /worker 1 died/);
  } finally {
    await pool.dispose();
  }
});

/** target[0] = repeats, by counting. */
const countUp = defineKernel({
  key: "test_count_up",
  arguments: { target: "pointer", repeats: "integer" },
  emit(machine, args) {
    const target = args.pointer("target");
    const repeats = args.integer("repeats");
    const count = machine.integer();
    machine.subtractInteger(count, repeats, repeats);
    machine.repeat(repeats, () => machine.addInteger(count, count, 1));
    machine.storeI32(target, 0, count);
    machine.free(target, repeats, count);
  },
});

Deno.test("WorkerPool does not take busy and waiting workers for dead ones", async () => {
  const pool = await WorkerPool.create({ ...optionsOf(2), silenceMs: 3000 });
  try {
    const target = pool.arena.allocate(64, "target");
    const repeats = 100_000_000;
    const step = { name: "count", calls: [[callKernel(countUp, { target, repeats })], []] };
    const plan = {
      ...planOf(Array.from({ length: 80 }, () => step), 2),
      kernels: [countUp as unknown as Plan["kernels"][number]],
    };
    const program = await prepare(pool, plan);
    await pool.run(program); // A phase takes a fiftieth of the silence allowed, on a quiet machine; all of them more than it.
    assert.equal(pool.arena.int32(target, 1)[0], repeats);
    await new Promise((resolve) => setTimeout(resolve, 3500)); // Nobody waits for idle workers.
    await pool.run(await prepare(pool, counting(pool).plan));
  } finally {
    await pool.dispose();
  }
});

Deno.test("poolFactory pins each worker to a core of its own while there are enough, and nobody unasked", async (t) => {
  const cores = allowedCores();
  const free = await poolFactory({ pin: false })(optionsOf(1));
  assert.equal(free.pinned, false);
  await free.dispose();
  if (cores.length === 0) {
    console.log("skipped: the affinity mask cannot be asked here");
    return;
  }
  const create = poolFactory({ pin: true });
  const pools = [await create(optionsOf(cores.length)), await create(optionsOf(1))];
  try {
    await t.step("a core each", () => assert.equal(pools[0].pinned, true));
    await t.step("none is left", () => assert.equal(pools[1].pinned, false));
    await t.step("the caller's thread stays free", () => assert.deepEqual(allowedCores(), cores));
    const { plan, count } = counting(pools[0], 10);
    await pools[0].run(await prepare(pools[0], plan));
    assert.equal(count(), 10);
    await pools.shift()!.dispose();
    await t.step("cores are given back", async () => {
      const next = await create(optionsOf(1));
      assert.equal(next.pinned, true);
      await next.dispose();
    });
  } finally {
    for (const pool of pools) await pool.dispose();
  }
});

Deno.test("WorkerPool gives back threads and memory: fifty are made, filled and disposed", async () => {
  const arenaBytes = 16 * 2 ** 20;
  const cycle = async () => {
    const arena = new Arena(arenaBytes);
    arena.bytes(0, arenaBytes).fill(1);
    const pool = await WorkerPool.create({ machine: selectMachine("wasm"), threads: 2, arena });
    const { plan, count } = counting(pool, 3);
    await pool.run(await prepare(pool, plan));
    assert.equal(count(), 3);
    await pool.dispose();
  };
  for (let warm = 0; warm < 10; warm++) await cycle();
  const before = Deno.memoryUsage().rss;
  for (let made = 0; made < 50; made++) await cycle();
  const grownMiB = (Deno.memoryUsage().rss - before) / 2 ** 20;
  // All arenas together would be 800 MiB; the collector may keep some for a while.
  assert.ok(grownMiB < 300, `grown by ${grownMiB.toFixed(0)} MiB`);
});

for (const [name, create] of Object.entries(factories)) {
  Deno.test(`${name} performs tasks on the arena, each once, and runs programs before and after`, async () => {
    const [rows, depth] = [20, 40];
    const random = new RandomStream(randomKey(1, "tasks"));
    const weights = Array.from(
      { length: 7 },
      () => Float32Array.from({ length: rows * depth }, () => random.uniform() < 0.2 ? random.normal() : 0),
    );
    const packed = weights.map((weight) => packSparse(weight, [rows, depth], { pattern: "unstructured" }));
    const executor = await create({ machine: selectMachine(), threads: 2, arena: new Arena(1 << 20) });
    try {
      const { plan, count } = counting(executor);
      const program = await prepare(executor, plan);
      await executor.run(program);
      const requests = weights.map((weight, index) => {
        const { bitmask, values } = encodeBitmask(weight, [rows, depth]);
        const { structure } = packed[index];
        const address = executor.arena.allocate(structure.byteLength, "packed");
        executor.arena.float32(address, values.length).set(values);
        return { shape: [rows, depth] as const, bitmask, nonZeros: values.length, structure, address };
      });
      assert.equal((await executor.perform(packMatrix, requests)).length, 7);
      requests.forEach(({ address }, index) =>
        assert.deepEqual(
          executor.arena.bytes(address, packed[index].bytes.length).slice(),
          packed[index].bytes,
        )
      );
      assert.deepEqual(await executor.perform(packMatrix, []), []);
      await executor.run(program);
      assert.equal(count(), 2);
    } finally {
      await executor.dispose();
    }
  });
}

for (const [name, create] of Object.entries(factories)) {
  Deno.test(`${name} runs programs that lie beyond 2 GiB, on data that lies there`, async () => {
    const arena = new Arena(2 ** 31 + 2 ** 20);
    const executor = await create({ machine: selectMachine(), threads: 2, arena });
    try {
      arena.allocate(2 ** 31, "what lies before");
      const { plan, count } = counting(executor, 3);
      await executor.run(await prepare(executor, plan));
      assert.equal(count(), 3);
    } finally {
      await executor.dispose();
    }
  });
}

for (const [name, create] of Object.entries(factories)) {
  Deno.test(`${name} runs programs for a part of its workers between those for all, thousands of them`, async () => {
    const executor = await create(optionsOf(3));
    try {
      const cells = Array.from({ length: 4 }, () => executor.arena.allocate(64, "cell"));
      const [one, ...counts] = cells;
      executor.arena.int32(one, 1)[0] = 1;
      counts.forEach((cell) => executor.arena.int32(cell, 1)[0] = 0);
      const call = (worker: number): KernelCall[] => [
        callKernel(accumulate, { source: one, target: counts[worker] }),
      ];
      const programs = await Promise.all(
        [1, 2, 3].map((team) =>
          prepare(
            executor,
            planOf(
              Array.from({ length: 4 }, () => ({
                name: `team of ${team}`,
                calls: Array.from({ length: team }, (_, worker) => call(worker)),
              })),
              team,
            ),
          )
        ),
      );
      const rounds = 500;
      for (let round = 0; round < rounds; round++) {
        for (const team of [0, 2, 0, 1, 1, 2]) await executor.run(programs[team]);
      }
      assert.deepEqual(counts.map((cell) => executor.arena.int32(cell, 1)[0]), [
        4 * 6 * rounds,
        4 * 4 * rounds,
        4 * 2 * rounds,
      ]);
    } finally {
      await executor.dispose();
    }
  });
}

Deno.test("WorkerPool fails with the reason of a task that throws, and knows no other tasks than its own", async () => {
  for (
    const [name, reason] of [["packMatrix", /worker \d failed: /], [
      "absent",
      /there is no such task/,
    ]] as const
  ) {
    const pool = await poolOf(2);
    await assert.rejects(pool.perform({ name, run: () => assert.fail("ran here") }, [{}, {}]), reason);
    await assert.rejects(pool.run({ entries: [0, 0], phaseNames: [] }), reason);
    await pool.dispose();
  }
});

Deno.test("WorkerPool takes threads that run already; those left end with their owner", async () => {
  using spare = new SpareThreads(3);
  const pool = await WorkerPool.create({ ...optionsOf(2), spare });
  const { plan, count } = counting(pool);
  await pool.run(await prepare(pool, plan));
  assert.equal(count(), 1);
  const left = spare.take();
  assert.equal(spare.take(), undefined);
  assert.ok(left);
  left.terminate();
  await pool.dispose();
  assert.throws(() => new SpareThreads(0), InputError);
});

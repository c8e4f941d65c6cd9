import assert from "node:assert/strict";
import { InputError } from "../src/core/errors.ts";
import { callKernel, defineKernel } from "../src/kernels/kernel.ts";
import { selectMachine } from "../src/machines/mod.ts";
import { Arena } from "../src/plan/arena.ts";
import { prepare } from "../src/plan/executor.ts";
import type { Plan } from "../src/plan/plan.ts";
import type { Step } from "../src/graph/operation.ts";
import { WorkerPool } from "./pool.ts";

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

function planOf(phases: Step[], workers: number): Plan {
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

const poolOf = (threads: number) =>
  WorkerPool.create({ machine: selectMachine(), threads, arena: new Arena(1 << 16) });

Deno.test("WorkerPool runs phases in lockstep: each worker reads what its neighbour wrote a phase before", async () => {
  for (const threads of [1, 2, 3, 5]) {
    const pool = await poolOf(threads);
    try {
      const cells = pool.arena.allocate(threads * 64, "cells");
      const address = (worker: number) => cells + ((worker + threads) % threads) * 64;
      // A ring: without a barrier between the phases the sums would depend on timing.
      const odd: Step = {
        name: "odd",
        calls: Array.from(
          { length: threads },
          (_, w) =>
            w % 2 === 1 || threads === 1
              ? [callKernel(accumulate, { source: address(w - 1), target: address(w) })]
              : [],
        ),
      };
      const even: Step = {
        name: "even",
        calls: Array.from(
          { length: threads },
          (_, w) =>
            w % 2 === 0 && w > 0
              ? [callKernel(accumulate, { source: address(w - 1), target: address(w) })]
              : [],
        ),
      };
      const phases = Array.from({ length: 100 }, (_, index) => index % 2 ? even : odd);
      const program = await prepare(pool, planOf(phases, threads));
      const words = pool.arena.int32(cells, threads * 16);
      const expected = Array.from({ length: threads }, (_, w) => w + 1);
      expected.forEach((value, w) => words[w * 16] = value);
      for (let run = 0; run < 20; run++) {
        await pool.run(program);
        for (const phase of phases) {
          phase.calls.forEach((calls, w) => {
            if (calls.length > 0) expected[w] = (expected[w] + expected[(w - 1 + threads) % threads]) | 0;
          });
        }
      }
      assert.deepEqual(expected.map((_, w) => words[w * 16]), expected, `${threads} threads`);
    } finally {
      await pool.dispose();
    }
  }
});

Deno.test("WorkerPool queues concurrent runs", async () => {
  const pool = await poolOf(2);
  try {
    const one = pool.arena.allocate(64, "one");
    const sum = pool.arena.allocate(64, "sum");
    pool.arena.int32(one, 1)[0] = 1;
    const call = callKernel(accumulate, { source: one, target: sum });
    const program = await prepare(pool, planOf([{ name: "count", calls: [[call], []] }], 2));
    await Promise.all(Array.from({ length: 200 }, () => pool.run(program)));
    assert.equal(pool.arena.int32(sum, 1)[0], 200);
  } finally {
    await pool.dispose();
  }
});

Deno.test("WorkerPool leaves the event loop free while it runs", async () => {
  const pool = await poolOf(2);
  try {
    const cell = pool.arena.allocate(64, "cell");
    const call = callKernel(accumulate, { source: cell, target: cell });
    const phases = Array.from({ length: 2000 }, () => ({ name: "busy", calls: [[call], []] }));
    const program = await prepare(pool, planOf(phases, 2));
    let ticks = 0;
    const timer = setInterval(() => ticks++, 0);
    for (let run = 0; run < 50; run++) await pool.run(program);
    clearInterval(timer);
    assert.ok(ticks > 0, "no timer fired during 100,000 phases");
  } finally {
    await pool.dispose();
  }
});

Deno.test("WorkerPool reports a kernel that traps, and refuses to go on", async () => {
  const pool = await WorkerPool.create({
    machine: selectMachine("wasm"), // WebAssembly traps where native code would crash the process.
    threads: 3,
    arena: new Arena(1 << 16),
  });
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
  } finally {
    await pool.dispose();
  }
});

/** Makes pools whose workers run `body` beside what they do anyway. */
async function withWorkersThat(body: string, test: () => Promise<void>): Promise<void> {
  const { Worker } = globalThis;
  globalThis.Worker = class extends Worker {
    constructor(url: string | URL, options?: WorkerOptions) {
      const source = `import ${JSON.stringify(String(url))};\n${body}`;
      super(`data:text/javascript,${encodeURIComponent(source)}`, options);
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
      const pool = await WorkerPool.create({ machine: selectMachine(), threads: 2, arena, silenceMs: 500 });
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

Deno.test("WorkerPool refuses to run after dispose", async () => {
  const pool = await poolOf(1);
  const program = await prepare(pool, planOf([{ name: "nothing", calls: [[]] }], 1));
  await pool.run(program);
  await pool.dispose();
  await assert.rejects(pool.run(program), /disposed/);
});

Deno.test("WorkerPool refuses zero, negative and fractional threads", async () => {
  for (const threads of [0, -1, 1.5, NaN]) {
    await assert.rejects(poolOf(threads), InputError);
  }
});

import assert from "node:assert/strict";
import fc from "fast-check";
import { type Contestant, interleave, percentile, summarize, type Timer } from "./measure.ts";

/** A clock that only moves when a contestant works or the harness pauses, and a log of what happened. */
class FakeTime implements Timer {
  nowMs = 0;
  readonly log: string[] = [];
  now(): number {
    return this.nowMs;
  }
  pause(ms: number): Promise<void> {
    this.nowMs += ms;
    this.log.push("pause");
    return Promise.resolve();
  }
  /** A contestant whose n-th call takes `latency(n)` milliseconds. */
  contestant(name: string, latency: (call: number) => number): Contestant {
    let calls = 0;
    return {
      name,
      run: () => {
        this.nowMs += latency(calls++);
        this.log.push(name);
        return Promise.resolve();
      },
    };
  }
}

const close = (actual: number, wanted: number) =>
  assert(Math.abs(actual - wanted) <= 1e-9 * Math.max(1, Math.abs(wanted)), `${actual}, wanted ${wanted}`);

Deno.test("summarize: percentiles, mean and sample deviation of a known list", () => {
  // numpy.percentile([15, 20, 35, 40, 50], [50, 95, 99]) and std(ddof=1)
  const summary = summarize([50, 15, 40, 20, 35]);
  close(summary.p50, 35);
  close(summary.p95, 48);
  close(summary.p99, 49.6);
  close(summary.mean, 32);
  close(summary.std, 14.404860290887934);
});

Deno.test("summarize: a single latency has no spread, none at all is an error", () => {
  assert.deepEqual(summarize([7]), { p50: 7, p95: 7, p99: 7, mean: 7, std: 0 });
  assert.throws(() => summarize([]), /there are none/);
});

Deno.test("summarize: percentiles are ordered, inside the range, and free of the order of the calls", () => {
  const latency = fc.double({ min: 0, max: 1e6, noNaN: true });
  fc.assert(fc.property(fc.array(latency, { minLength: 1 }), (latencies) => {
    const { p50, p95, p99, mean } = summarize(latencies);
    const [smallest, largest] = [Math.min(...latencies), Math.max(...latencies)];
    assert(smallest <= p50 && p50 <= p95 && p95 <= p99 && p99 <= largest);
    assert(smallest <= mean * (1 + 1e-9) && mean <= largest * (1 + 1e-9));
    assert.equal(summarize([...latencies].reverse()).p95, p95);
  }));
});

Deno.test("percentile: the ends are the smallest and the largest value", () => {
  assert.equal(percentile([1, 5, 9], 0), 1);
  assert.equal(percentile([1, 5, 9], 1), 9);
});

Deno.test("interleave: turns pause, warm up, then time, and reverse every round", async () => {
  const time = new FakeTime();
  const contestants = [time.contestant("a", () => 30), time.contestant("b", () => 60)];
  const progress: number[] = [];
  const [a, b] = await interleave(contestants, {
    warmup: 1,
    rounds: 2,
    turnMs: 60,
    timer: time,
    onProgress: (share) => progress.push(share),
  });
  const turnOfA = ["pause", "a", "a", "a"];
  const turnOfB = ["pause", "b", "b"];
  assert.deepEqual(time.log, ["a", "b", ...turnOfA, ...turnOfB, ...turnOfB, ...turnOfA]);
  assert.deepEqual(a.latenciesMs, [30, 30, 30, 30]);
  assert.deepEqual(b.latenciesMs, [60, 60]);
  assert.deepEqual([a.name, b.name], ["a", "b"]);
  assert.equal(b.summary.p50, 60);
  assert.deepEqual(progress, [0.5, 1]);
});

Deno.test("interleave: the first call of a turn is not timed", async () => {
  const time = new FakeTime();
  const slowAtFirst = time.contestant("a", (call) => call === 0 ? 1000 : 10);
  const [a] = await interleave([slowAtFirst], { warmup: 0, rounds: 1, turnMs: 30, timer: time });
  assert.deepEqual(a.latenciesMs, [10, 10, 10]);
});

Deno.test("interleave: seconds are timed seconds for each contestant, in whole rounds", async () => {
  const time = new FakeTime();
  const contestants = [time.contestant("a", () => 10), time.contestant("b", () => 400)];
  const progress: number[] = [];
  const [a, b] = await interleave(contestants, {
    seconds: 1,
    turnMs: 100,
    timer: time,
    onProgress: (share) => progress.push(share),
  });
  // A round times 100 + 400 ms, so 2 s take four of them.
  assert.equal(a.latenciesMs.length, 40);
  assert.equal(b.latenciesMs.length, 4);
  assert.deepEqual(progress, [0.25, 0.5, 0.75, 1]);
});

Deno.test("interleave: an error of a contestant reaches the caller, nobody to measure is no error", async () => {
  const failing: Contestant = { name: "a", run: () => Promise.reject(new Error("out of memory")) };
  await assert.rejects(interleave([failing], { rounds: 1 }), /out of memory/);
  assert.deepEqual(await interleave([], { seconds: 1 }), []);
});

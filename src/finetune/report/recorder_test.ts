import assert from "node:assert/strict";
import { join } from "node:path";
import { InputError } from "../../core/errors.ts";
import { type RecordedEvaluation, RunRecorder } from "./recorder.ts";
import type { RunOutcome } from "./run_report.ts";

class Folder implements AsyncDisposable {
  private constructor(readonly out: string) {}

  static async create(): Promise<Folder> {
    return new Folder(await Deno.makeTempDir({ prefix: "lacuna-" }));
  }

  /** The record of a run that has come so far. */
  open(completedSteps: number): Promise<RunRecorder> {
    const settings = { learningRate: 5e-5, text: "<b> & co", model: undefined, labels: ["no", "yes"] };
    return RunRecorder.open({ out: this.out, settings, completedSteps });
  }

  read(...name: string[]): string {
    return Deno.readTextFileSync(join(this.out, ...name));
  }

  /** The lines of `metrics.jsonl`. */
  metrics(): Record<string, unknown>[] {
    return this.read("metrics.jsonl").split("\n").slice(0, -1).map((line) => JSON.parse(line));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.out, { recursive: true });
  }
}

const lossAt = (step: number) => 1 / step;

function takeSteps(recorder: RunRecorder, first: number, last: number): void {
  for (let step = first; step <= last; step++) {
    const sparsity = step > 10 ? 0.5 : 0;
    recorder.step({ completedSteps: step, loss: lossAt(step), learningRate: 1e-5 * step, sparsity });
  }
}

function evaluation(completedSteps: number, accuracy = 0.5): RecordedEvaluation {
  const metrics = { accuracy, macroF1: accuracy / 2 };
  const primary = { name: "accuracy", value: accuracy, higherIsBetter: true };
  return { completedSteps, loss: 0.25, examples: 10, metrics, primary, sparsity: 0.5 };
}

const outcome: RunOutcome = {
  device: "cpu",
  precision: "fp32",
  threads: 2,
  isa: "avx2",
  steps: 20,
  examples: 320,
  seconds: 12.5,
  tokensPerSecond: 1234,
  stages: [
    { name: "dense", steps: 10, seconds: 5, tokensPerSecond: 1500 },
    { name: "recovery", steps: 10, seconds: 7.5, tokensPerSecond: 1000 },
  ],
  evaluation: evaluation(20, 0.875),
  denseEvaluation: evaluation(10, 0.9),
  sparsity: {
    overall: 0.5,
    weights: 8,
    zeros: 4,
    layers: [{ name: "bert.encoder.layer.0.output.dense.weight", weights: 8, zeros: 4, sparsity: 0.5 }],
  },
};

Deno.test("metrics.jsonl has a whole line for each evaluation as soon as it is there", async () => {
  await using folder = await Folder.create();
  const recorder = await folder.open(0);
  takeSteps(recorder, 1, 8);
  await recorder.evaluation(evaluation(8, 0.75), 1);
  assert.equal(folder.metrics().length, 1);
  takeSteps(recorder, 9, 16);
  await recorder.evaluation(evaluation(16), 2);
  const [{ seconds, ...first }, second] = folder.metrics();
  assert.deepEqual(first, {
    step: 8,
    epoch: 1,
    loss: 0.25,
    metrics: { accuracy: 0.75, macro_f1: 0.375 },
    sparsity: 0.5,
    learning_rate: 8e-5,
  });
  assert.ok(Number(seconds) > 0 && Number(second.seconds) >= Number(seconds));
  assert.deepEqual([second.step, second.learning_rate], [16, 1e-5 * 16]);
  assert.deepEqual(Array.from(Deno.readDirSync(folder.out), ({ name }) => name), ["metrics.jsonl"]);
});

Deno.test("a resumed run forgets the evaluations after its step, and no step appears twice", async () => {
  await using folder = await Folder.create();
  const killed = await folder.open(0);
  for (const step of [4, 8, 12]) {
    takeSteps(killed, step - 3, step);
    await killed.evaluation(evaluation(step), step / 4);
    if (step === 8) await killed.save();
  }
  const resumed = await folder.open(8);
  assert.deepEqual(folder.metrics().map(({ step }) => step), [4, 8]);
  // Evaluated again, just before pruning.
  await resumed.evaluation(evaluation(8, 0.6), 2);
  takeSteps(resumed, 9, 12);
  await resumed.evaluation(evaluation(12, 0.7), 3);
  assert.deepEqual(
    folder.metrics().map(({ step, metrics }) => [step, (metrics as { accuracy: number }).accuracy]),
    [[4, 0.5], [8, 0.6], [12, 0.7]],
  );
  assert.deepEqual(resumed.points.map(({ step }) => step), Array.from({ length: 12 }, (_, i) => i + 1));
  const seconds = resumed.points.map((point) => point.seconds);
  assert.deepEqual(seconds, seconds.toSorted((a, b) => a - b), "time goes on where it stopped");
});

Deno.test("a new run in an old folder begins a new record", async () => {
  await using folder = await Folder.create();
  await Deno.writeTextFile(join(folder.out, "metrics.jsonl"), "of another time\n");
  const recorder = await folder.open(0);
  assert.equal(folder.read("metrics.jsonl"), "");
  assert.equal(recorder.points.length, 0);
});

Deno.test("metrics that are no numbers are null and come back", async () => {
  await using folder = await Folder.create();
  const recorder = await folder.open(0);
  await recorder.evaluation({ ...evaluation(4, NaN), loss: NaN }, 1);
  assert.deepEqual(folder.metrics()[0].metrics, { accuracy: null, macro_f1: null });
  const resumed = await folder.open(4);
  await resumed.evaluation(evaluation(8), 2);
  assert.equal(folder.metrics()[0].loss, null);
});

Deno.test("a long history keeps a thousand points, the same ones wherever it was resumed", async () => {
  await using folder = await Folder.create();
  const whole = await folder.open(0);
  takeSteps(whole, 1, 5001);
  const steps = (recorder: RunRecorder) => recorder.points.map(({ step, loss }) => [step, loss]);
  const expected = steps(whole);
  assert.ok(expected.length > 500 && expected.length <= 1001, `${expected.length}`);
  assert.deepEqual(expected.slice(0, 2), [[8, lossAt(8)], [16, lossAt(16)]]);
  assert.deepEqual(expected.slice(-2), [[5000, lossAt(5000)], [5001, lossAt(5001)]]);
  for (const stop of [5, 999, 1000, 1001, 2003, 4999]) {
    const first = await folder.open(0);
    takeSteps(first, 1, stop);
    await first.save();
    takeSteps(first, stop + 1, stop + 3);
    const resumed = await folder.open(stop);
    takeSteps(resumed, stop + 1, 5001);
    assert.deepEqual(steps(resumed), expected, `resumed at ${stop}`);
  }
});

Deno.test("a history that was saved after the state is cut at the state's step", async () => {
  await using folder = await Folder.create();
  const ahead = await folder.open(0);
  takeSteps(ahead, 1, 9);
  await ahead.save();
  assert.equal((await folder.open(6)).points.at(-1)!.step, 6);
});

Deno.test("a damaged record is one line that names the place", async () => {
  await using folder = await Folder.create();
  for (
    const [text, message] of [
      ["{", /metrics\.jsonl, line 2 is not valid JSON/],
      ["[1]", /metrics\.jsonl, line 2 is \[1\]: wanted a JSON object/],
      ['{"step":2}', /line 2: metrics is missing, wanted an object/],
      ['{"step":"2","metrics":{}}', /line 2: step is "2", wanted a number/],
      ['{"step":2,"epoch":1,"loss":1,"metrics":{"a":"b"}}', /line 2, metrics: a is "b", wanted a number/],
    ] as const
  ) {
    await Deno.writeTextFile(join(folder.out, "metrics.jsonl"), `\n${text}\n`);
    await assert.rejects(
      folder.open(4),
      (error) => error instanceof InputError && message.test(error.message) && !error.message.includes("\n"),
      text,
    );
  }
});

Deno.test("finish writes a page that needs nothing else, with every chart, stage, setting and evaluation", async () => {
  await using folder = await Folder.create();
  const recorder = await folder.open(0);
  takeSteps(recorder, 1, 10);
  await recorder.evaluation(evaluation(10), 1);
  takeSteps(recorder, 11, 20);
  await recorder.evaluation(evaluation(20, 0.875), 2);
  assert.equal(await recorder.finish(outcome), join(folder.out, "report.html"));
  const html = folder.read("report.html");
  // Loss, metric, rate, sparsity, layers.
  assert.equal(html.match(/<svg /g)?.length, 5);
  for (
    const text of [
      "accuracy 0.8750 with 50.0 % zeros; dense, before pruning: 0.9000.",
      "20 steps on 320 examples in 12.5 s, 1,234 tokens/s; cpu, avx2, 2 threads",
      "<td>recovery</td>",
      "&lt;b&gt; &amp; co",
      "[&quot;no&quot;,&quot;yes&quot;]",
      ">macro f1</th>",
      ">layer 0<",
    ]
  ) assert.ok(html.includes(text), text);
  assert.doesNotMatch(html, /<td>model<\/td>|<b>|undefined/);
  const addresses = html.match(/(?:https?:)?\/\/[a-z0-9.]+[^"' <]*/gi) ?? [];
  assert.ok(addresses.every((address) => address.startsWith("http://www.w3.org/")), addresses.join());
  assert.doesNotMatch(html, /<(script|link|img|iframe|object|embed)\b|@import|url\((?!#)|(fill|stroke)="#/);
});

Deno.test("finish of a run without evaluations, pruning and steps of its own shows what there is", async () => {
  await using folder = await Folder.create();
  const recorder = await folder.open(0);
  const { evaluation: _, denseEvaluation: __, ...rest } = outcome;
  const sparsity = { overall: 0, weights: 8, zeros: 0, layers: [] };
  await recorder.finish({ ...rest, sparsity });
  assert.doesNotMatch(folder.read("report.html"), /<svg|NaN|headline">/);
  takeSteps(recorder, 1, 3);
  recorder.step({ completedSteps: 4, loss: NaN, learningRate: 1e-5, sparsity: 0 });
  await recorder.finish({ ...rest, sparsity });
  const html = folder.read("report.html");
  assert.equal(html.match(/<svg /g)?.length, 2);
  assert.doesNotMatch(html, /NaN/);
});

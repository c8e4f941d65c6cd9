/** From runs to verdicts and reports, with numbers worked out by hand. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type Grid, makeGrid } from "./grid.ts";
import { formatComparison, htmlComparison, markdownReport } from "./report.ts";
import { compareRuns, type ComparisonResult } from "./result.ts";
import { planRuns, runGrid } from "./run_grid.ts";
import { RunLog } from "./run_log.ts";
import { caveats, differenceRows, figures } from "./tables.ts";

/** Metric of each variant by seed; a text is the error of a run that failed. */
type Values = Readonly<Record<string, readonly (number | string)[]>>;

interface Made {
  readonly values: Values;
  readonly higherIsBetter?: boolean;
  readonly factors?: readonly number[];
  /** Milliseconds of a step, by variant. */
  readonly msPerStep?: Readonly<Record<string, number>>;
  readonly sparsity?: number;
  readonly metricOf?: (variant: string) => string;
}

function gridOf({ values, factors }: Made): Grid {
  const names = Object.keys(values).filter((name) => !name.includes("×"));
  return makeGrid({
    name: "made-up",
    description: "What is compared",
    base: { "learning-rate": 1e-3, train: "…/train.tsv" },
    seeds: values[names[0]].length,
    baseline: names[0],
    variants: Object.fromEntries(names.map((name) => [name, { optimizer: name }])),
    controls: factors && { of: names[0], factors },
  }, {
    source: "test",
    knownFlags: new Map(["learning-rate", "optimizer", "train"].map((name) => [name, { takesValue: true }])),
  });
}

async function compare(made: Made): Promise<ComparisonResult> {
  const folder = await Deno.makeTempDir({ prefix: "lacuna-" });
  try {
    const train = join(folder, "train.tsv");
    await Deno.writeTextFile(train, "");
    const grid = gridOf(made);
    const runs = await planRuns({ ...grid, base: { ...grid.base, train } });
    const log = await RunLog.open(join(folder, "runs.jsonl"));
    await runGrid(runs, {
      log,
      jobs: 1,
      runner: ({ variant, seed }) => {
        const value = made.values[variant][seed - 1];
        if (typeof value === "string") return Promise.reject(new Error(value));
        const name = made.metricOf?.(variant) ?? "accuracy";
        return Promise.resolve({
          steps: 10,
          seconds: (made.msPerStep?.[variant] ?? 100) / 100,
          threads: 1,
          isa: "avx2",
          sparsity: made.sparsity ?? 0,
          loss: 1 - value,
          metrics: { [name]: value, f1: value / 2 },
          primary: { name, value, higherIsBetter: made.higherIsBetter ?? true },
        });
      },
    });
    return compareRuns(grid, runs, log);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function assertClose(found: number, wanted: number): void {
  assert.ok(Math.abs(found - wanted) < 1e-4, `found ${found}, wanted ${wanted}`);
}

Deno.test("differences are paired by seed: what seeds have in common does not hide a small gain", async () => {
  const result = await compare({
    // Seeds differ by tenths, the variants by a hundredth: differences 0.01, 0.012, 0.008.
    values: { adamw: [0.5, 0.7, 0.9], meta: [0.51, 0.712, 0.908] },
    msPerStep: { adamw: 100, meta: 150 },
  });
  const [adamw, meta] = result.variants;
  assert.equal(adamw.vs_baseline, undefined);
  assert.equal(meta.step_time_vs_baseline, 1.5);
  assertClose(meta.ms_per_step!.mean, 150);
  assertClose(meta.metrics.f1.mean, 0.355);
  const { against, difference, verdict } = meta.vs_baseline!;
  assert.deepEqual([against, difference!.count, verdict], ["adamw", 3, "better"]);
  // Deviation 0.002; half an interval is 4.3027 · 0.002 / √3 = 0.004968.
  assertClose(difference!.mean, 0.01);
  assertClose(difference!.interval![0], 0.01 - 0.004968);
  assertClose(difference!.interval![1], 0.01 + 0.004968);
  // Unpaired, their intervals overlap nearly all the way.
  assert.ok(adamw.primary!.interval![1] > meta.primary!.mean);
});

Deno.test("lower is better for an error: the same numbers, the other verdict", async () => {
  const values = { adamw: [0.5, 0.7, 0.9], meta: [0.51, 0.712, 0.908] };
  const { variants } = await compare({ values, higherIsBetter: false });
  assert.equal(variants[1].vs_baseline!.verdict, "worse");
});

Deno.test("a gain that another learning rate brings too is no gain over the best control", async () => {
  const result = await compare({
    values: {
      adamw: [0.5, 0.6, 0.7, 0.8],
      "adamw, rate × 0.5": [0.4, 0.5, 0.6, 0.7],
      "adamw, rate × 1.5": [0.6, 0.71, 0.8, 0.9],
      meta: [0.601, 0.705, 0.802, 0.901],
    },
    factors: [0.5, 1.5],
  });
  const [adamw, slow, fast, meta] = result.variants;
  assert.deepEqual([slow.control_of, fast.control_of, meta.control_of], ["adamw", "adamw", undefined]);
  assert.equal(fast.flags["learning-rate"], 1.5e-3);
  assert.equal(meta.vs_baseline!.verdict, "better");
  assert.deepEqual(
    [meta.vs_best_control!.against, meta.vs_best_control!.verdict],
    ["adamw, rate × 1.5", "no difference shown"],
  );
  for (const control of [adamw, slow, fast]) assert.equal(control.vs_best_control, undefined);
  assert.deepEqual(
    differenceRows(result).map(({ variant, against }) => [variant, against]),
    [
      ["adamw, rate × 0.5", "adamw"],
      ["adamw, rate × 1.5", "adamw"],
      ["meta", "adamw"],
      ["meta", "adamw, rate × 1.5"],
    ],
  );
  assert.ok(
    caveats(result).some((line) => line.startsWith("The best control, adamw, rate × 1.5, was chosen")),
  );
  assert.match(formatComparison(result), /meta +adamw, rate × 1.5 +4 +.* no difference shown at 4 seeds\n/);
});

Deno.test("a variant that failed with a seed is not judged, and its line is shown", async () => {
  const result = await compare({
    values: {
      adamw: [0.5, 0.6, 0.7],
      sgd: [0.9, "gradients are not finite at step 12", 0.95],
      nothing: ["no", "no", "no"],
    },
  });
  const [, sgd, nothing] = result.variants;
  assert.deepEqual(sgd.failures, [{ seed: 2, error: "gradients are not finite at step 12" }]);
  assert.deepEqual([sgd.runs, sgd.vs_baseline!.difference!.count, sgd.vs_baseline!.verdict], [
    2,
    2,
    "not comparable",
  ]);
  assert.deepEqual([nothing.primary, nothing.vs_baseline!.difference], [undefined, undefined]);
  const text = formatComparison(result);
  assert.match(text, /^sgd +2 of 3 +0.9250 /m);
  assert.match(text, /^nothing +0 of 3 +– /m);
  assert.match(text, /^sgd +adamw +2 .* not comparable: runs failed$/m);
  assert.match(text, /^sgd, seed 2 failed: gradients are not finite at step 12$/m);
});

Deno.test("a control that failed is not the best one", async () => {
  const { variants } = await compare({
    values: { adamw: [0.5, 0.6], "adamw, rate × 1.5": [0.9, "NaN"], meta: [0.7, 0.7] },
    factors: [1.5],
  });
  assert.equal(variants[2].vs_best_control!.against, "adamw");
});

Deno.test("when every run failed there is a table of failures and nothing to compare", async () => {
  const result = await compare({ values: { adamw: ["no"], sgd: ["no"] } });
  assert.equal(result.metric, undefined);
  assert.match(formatComparison(result), /^adamw +0 of 1 +–/m);
  assert.ok((await htmlComparison(result, origin)).includes("adamw, seed 1 failed: no"));
});

Deno.test("variants that are judged by different metrics are refused", async () => {
  const values = { adamw: [0.5], regression: [0.5] };
  const metricOf = (variant: string) => variant === "adamw" ? "accuracy" : "pearson";
  await assert.rejects(compare({ values, metricOf }), {
    name: "InputError",
    message: "adamw is judged by accuracy and regression by pearson: wanted variants of one task",
  });
});

const origin = {
  args: ["grid.yaml", "--set", "data=/home/someone/data", "--train=/home/someone/it's.tsv"],
  machine: "A processor; 2 cores",
  versions: { lacuna: "0.1.0", deno: "2.9.6" },
};

Deno.test("Markdown says how the numbers were made, with no path of the machine", async () => {
  const result = await compare({ values: { adamw: [0.5, 0.6], sgd: [0.7, 0.7] }, sparsity: 0.9 });
  const text = markdownReport(result, origin);
  assert.match(text, /^# made-up\n\nWhat is compared\n/);
  assert.ok(
    text.includes("\ndeno task compare grid.yaml --set data=…/data '--train=…/it'\\''s.tsv'\n"),
    text,
  );
  assert.ok(
    text.includes("\non A processor; 2 cores; lacuna 0.1.0, deno 2.9.6; each run on 1 thread of avx2."),
  );
  assert.ok(text.includes("\n--learning-rate=0.001 --train=…/train.tsv\n"));
  assert.match(text, /^sgd +--optimizer=sgd$/m);
  assert.match(text, /^sgd +2 +0.7000 .* 90.0 %$/m);
  assert.ok(!text.includes("/home"));
});

Deno.test("the page has the charts and tables, and escapes what it is told", async () => {
  const result = await compare({ values: { adamw: [0.5, 0.6], "<b>": [0.7, 0.7] } });
  const page = await htmlComparison(result, origin);
  assert.equal(page.match(/<svg /g)?.length, 2);
  assert.ok(page.includes("&lt;b&gt;") && !page.includes("<b>"));
  for (const heading of ["Mean accuracy", "Against adamw", "Variants", "Differences", "Machine"]) {
    assert.ok(page.includes(`<h2>${heading}</h2>`), heading);
  }
});

Deno.test("figures keep four digits", () => {
  assert.deepEqual(
    [0.81234, 120.468, 12345.6, 1.5e-5, 0, -0.5, Infinity].map(figures),
    ["0.8123", "120.5", "12346", "0.00001500", "0", "-0.5000", "Infinity"],
  );
});

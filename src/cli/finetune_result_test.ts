/** The last lines of a run: what was written, and what can be done with it. */
import assert from "node:assert/strict";
import type { FinetuneResult } from "../finetune/mod.ts";
import { type TaskName, taskNames } from "../finetune/options.ts";
import { formatResult, formatSeeds, seedsJson } from "./finetune_result.ts";

const result: FinetuneResult = {
  device: "cpu",
  precision: "fp32",
  threads: 2,
  isa: "wasm",
  steps: 3,
  examples: 24,
  seconds: 1,
  tokensPerSecond: 100,
  stages: [],
  dataWait: 0,
  sparsity: { overall: 0, weights: 0, zeros: 0, layers: [] },
  out: "runs/x",
  unexportable: "nobody wants it",
  report: "runs/x/report.html",
};

Deno.test("formatResult names what was written, and next steps that the task's models can take", () => {
  const next: Readonly<Record<TaskName, string>> = {
    "text-classification": '\n\nnext:\n  deno task infer "the plot is anything but dull"\n  deno task bench',
    "regression": '\n\nnext:\n  deno task infer "the plot is anything but dull"\n  deno task bench',
    "masked-lm": "\n\nnext:\n  deno task finetune --model runs/x --train <labelled texts>",
    "forecasting": "",
  };
  for (const task of taskNames) {
    const text = formatResult(result, task);
    const written = "\n  no export: nobody wants it\n  runs/x/report.html  the run in charts";
    assert.ok(text.endsWith(written + next[task]), text);
  }
});

Deno.test("several seeds are shown with mean, deviation and range; one seed has no deviation", () => {
  const runs = [1, 2].map((seed) => ({ seed, result }));
  const spread = { name: "macroF1", count: 2, mean: 0.5, deviation: 0.1, least: 0.4, greatest: 0.6 };
  assert.equal(
    formatSeeds({ runs, spreads: [spread] }),
    "\n2 seeds: mean ± standard deviation (least to most)\n  macroF1      0.5000 ± 0.1000  (0.4000 to 0.6000)",
  );
  assert.match(formatSeeds({ runs, spreads: [{ ...spread, deviation: undefined }] }), / 0\.5000 ± – {2}\(/);
  assert.deepEqual(seedsJson({ runs: [], spreads: [spread] }), {
    seeds: { macro_f1: { mean: 0.5, std: 0.1, min: 0.4, max: 0.6 } },
    runs: [],
  });
});

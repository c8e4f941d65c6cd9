/**
 * What `deno task finetune` says in the end, to readers and to programs.
 * @module
 */
import { describeEvaluation, jsonName, metricsJson } from "../evaluate/metrics.ts";
import type { FinetuneResult } from "../finetune/mod.ts";
import type { TaskName } from "../finetune/options.ts";
import type { SeedsResult } from "../finetune/seeds.ts";
import type { EvaluationRecord } from "../finetune/state.ts";
import { formatDuration } from "./progress.ts";

/** The result in the form of the command contract. */
export function finetuneJson(result: FinetuneResult): Record<string, unknown> {
  return {
    device: result.device,
    gpu: result.gpu,
    precision: result.precision,
    isa: result.isa,
    threads: result.threads,
    steps: result.steps,
    seconds: result.seconds,
    tokens_per_second: result.tokensPerSecond,
    data_wait: result.dataWait,
    stages: result.stages.map(({ name, steps, seconds, tokensPerSecond }) => ({
      name,
      steps,
      seconds,
      tokens_per_second: tokensPerSecond,
    })),
    eval: evaluationJson(result.evaluation),
    dense_eval: evaluationJson(result.denseEvaluation),
    sparsity: {
      overall: result.sparsity.overall,
      layers: Object.fromEntries(result.sparsity.layers.map(({ name, sparsity }) => [name, sparsity])),
    },
    out: result.out,
    export: result.exported?.dir,
    report: result.report,
  };
}

function evaluationJson(record: EvaluationRecord | undefined): Record<string, unknown> | undefined {
  return record && {
    loss: record.loss,
    ...metricsJson(record),
    examples: record.examples,
    sparsity: record.sparsity,
    step: record.completedSteps,
  };
}

/** The result of several seeds in the same form. */
export function seedsJson({ runs, spreads }: SeedsResult): Record<string, unknown> {
  return {
    seeds: Object.fromEntries(
      spreads.map(({ name, mean, deviation, least, greatest }) => [
        jsonName(name),
        { mean, std: deviation, min: least, max: greatest },
      ]),
    ),
    runs: runs.map(({ seed, result }) => ({ seed, ...finetuneJson(result) })),
  };
}

/** Several seeds, for the reader. */
export function formatSeeds({ runs, spreads }: SeedsResult): string {
  const lines = ["", `${runs.length} seeds: mean ± standard deviation (least to most)`];
  const figures = (value: number | undefined) => value?.toFixed(4) ?? "–";
  for (const { name, mean, deviation, least, greatest } of spreads) {
    const range = `(${figures(least)} to ${figures(greatest)})`;
    lines.push(`  ${name.padEnd(12)} ${figures(mean)} ± ${figures(deviation)}  ${range}`);
  }
  return lines.join("\n");
}

/** Whether `infer`, `evaluate` and `bench` take what a run makes: models that answer texts. */
export function answersTexts(task: TaskName): boolean {
  return task === "text-classification" || task === "regression";
}

/** What can be done with what a run has made. */
function nextSteps(task: TaskName, out: string): string[] {
  if (answersTexts(task)) return [`deno task infer "the plot is anything but dull"`, "deno task bench"];
  // A language model has no answers of its own: it is what others are fine-tuned from.
  if (task === "masked-lm") return [`deno task finetune --model ${out} --train <labelled texts>`];
  return [];
}

/** The end of a run, for the reader. */
export function formatResult(result: FinetuneResult, task: TaskName): string {
  const percent = (value: number) => `${(value * 100).toFixed(2)} %`;
  const line = (name: string, record: EvaluationRecord) =>
    `  ${name.padEnd(26)} ${describeEvaluation(record)}`;
  const lines = [
    "",
    `${result.steps} steps in ${formatDuration(result.seconds)}, ` +
    `${
      Math.round(result.tokensPerSecond).toLocaleString("en")
    } tokens/s on ${result.threads} threads (${result.isa}), ${
      percent(result.dataWait)
    } of it waiting for data`,
  ];
  for (const { name, steps, tokensPerSecond } of result.stages) {
    const rate = `${Math.round(tokensPerSecond).toLocaleString("en")} tokens/s`;
    lines.push(`  ${name.padEnd(26)} ${String(steps).padStart(6)} steps  ${rate}`);
  }
  if (result.denseEvaluation) lines.push(line("dense, before pruning", result.denseEvaluation));
  if (result.evaluation) {
    lines.push(line(`kept, ${percent(result.sparsity.overall)} zeros`, result.evaluation));
  }
  lines.push("", "  layer                                          weights      zeros   sparsity");
  for (const layer of result.sparsity.layers) {
    lines.push(
      `  ${layer.name.replace("bert.encoder.", "").padEnd(42)} ${String(layer.weights).padStart(11)} ` +
        `${String(layer.zeros).padStart(10)} ${percent(layer.sparsity).padStart(10)}`,
    );
  }
  lines.push("", "written:");
  lines.push(
    `  ${result.out}/  the model as a Hugging Face folder (zeros stored), training state in training/`,
  );
  const { exported, unexportable } = result;
  if (!exported) lines.push(`  no export: ${unexportable}`);
  for (const file of exported?.files ?? []) {
    lines.push(
      `  ${exported!.dir}/${file.name}  ${(file.byteLength / 2 ** 20).toFixed(2)} MiB  ${file.what}`,
    );
  }
  lines.push(`  ${result.report}  the run in charts`);
  const next = nextSteps(task, result.out);
  if (next.length > 0) lines.push("", "next:", ...next.map((step) => `  ${step}`));
  return lines.join("\n");
}

/**
 * `deno task finetune`: a run told to the reader as it goes.
 * @module
 */
import { errorMessage } from "../core/errors.ts";
import type { FinetuneResult } from "../finetune/mod.ts";
import type { EvaluationRecord } from "../finetune/state.ts";
import { finetune } from "../../mod.ts";
import { type Command, jsonOnStandardOutput, runCommand, writeJson } from "./command.ts";
import { finetuneCommand, settingsOf } from "./finetune_flags.ts";
import { noteLastModel } from "./last_model.ts";
import { formatDuration, ProgressDisplay } from "./progress.ts";

/** The result in the form of the command contract. */
export function finetuneJson(result: FinetuneResult): Record<string, unknown> {
  const metrics = (record: EvaluationRecord | undefined) =>
    record && {
      loss: record.loss,
      accuracy: record.accuracy,
      macro_f1: record.macroF1,
      matthews: record.matthews,
      examples: record.examples,
      sparsity: record.sparsity,
      step: record.completedSteps,
    };
  return {
    device: result.device,
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
    eval: metrics(result.evaluation),
    dense_eval: metrics(result.denseEvaluation),
    sparsity: {
      overall: result.sparsity.overall,
      layers: Object.fromEntries(result.sparsity.layers.map(({ name, sparsity }) => [name, sparsity])),
    },
    out: result.out,
    export: result.exported.dir,
  };
}

/** The end of a run, for the reader. */
export function formatResult(result: FinetuneResult): string {
  const percent = (value: number) => `${(value * 100).toFixed(2)} %`;
  const line = (name: string, record: EvaluationRecord) =>
    `  ${name.padEnd(26)} accuracy ${percent(record.accuracy)}  loss ${record.loss.toFixed(4)}  ` +
    `macro F1 ${record.macroF1.toFixed(4)}`;
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
  for (const file of result.exported.files) {
    lines.push(
      `  ${result.exported.dir}/${file.name}  ${(file.byteLength / 2 ** 20).toFixed(2)} MiB  ${file.what}`,
    );
  }
  lines.push("", "next:", `  deno task infer "the plot is anything but dull"`, "  deno task bench");
  return lines.join("\n");
}

async function run(command: Command): Promise<void> {
  const flags = command.opts();
  const settings = settingsOf(flags);
  const display = new ProgressDisplay();
  const controller = new AbortController();
  let interrupts = 0;
  Deno.addSignalListener("SIGINT", () => {
    if (++interrupts > 1) Deno.exit(1);
    display.note("stopping; once more stops at once");
    controller.abort();
  });
  const result = await finetune(settings, {
    signal: controller.signal,
    listener: {
      message: (text) => display.note(text),
      data: (progress) => display.data(progress),
      step: (progress) => display.step(progress),
      evaluation: (record, epoch) =>
        display.note(
          `epoch ${epoch.toFixed(2)}: accuracy ${(record.accuracy * 100).toFixed(2)} %, ` +
            `loss ${record.loss.toFixed(4)}, sparsity ${(record.sparsity * 100).toFixed(1)} %`,
        ),
    },
  }).finally(() => display.stop());
  // The run has succeeded by now, even where nothing may be written beside its folder.
  await noteLastModel(result.exported.dir).catch((error) =>
    console.error(`${errorMessage(error)}; infer and bench will need --model`)
  );
  if (!jsonOnStandardOutput(flags.json)) console.log(formatResult(result));
  await writeJson(flags.json, finetuneJson(result));
}

if (import.meta.main) await runCommand(finetuneCommand(), run);

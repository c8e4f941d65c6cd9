/**
 * `deno task finetune`: a run told to the reader as it goes.
 * @module
 */
import { dirname } from "node:path";
import { errorMessage } from "../core/errors.ts";
import { ensureFolder, writeFileAtomic } from "../core/files.ts";
import { describeEvaluation } from "../evaluate/metrics.ts";
import type { FinetuneResult } from "../finetune/mod.ts";
import type { FinetuneSettings } from "../finetune/options.ts";
import { findLearningRate, finetune } from "../../mod.ts";
import { type Command, jsonOnStandardOutput, runCommand, writeJson } from "./command.ts";
import { finetuneCommand } from "./finetune_flags.ts";
import { answersTexts, finetuneJson, formatResult, formatSeeds, seedsJson } from "./finetune_result.ts";
import { settingsOf } from "./finetune_settings.ts";
import { noteLastModel } from "./last_model.ts";
import { ProgressDisplay } from "./progress.ts";
import { checkRecipeFlags } from "./recipe_flags.ts";

async function run(command: Command): Promise<void> {
  const flags = command.opts();
  const settings = settingsOf(flags);
  await checkRecipeFlags(command, settings);
  if (flags.printRecipe) return await printRecipe(settings);
  const interruption = stopOnInterrupt();
  if (flags.findLr) return await findRate(settings, flags.json, interruption);
  const runOnce = (each: FinetuneSettings) => runShown(each, interruption);
  if (flags.seeds !== undefined) {
    const { finetuneSeeds } = await import("../finetune/seeds.ts");
    const result = await finetuneSeeds(settings, flags.seeds, runOnce);
    if (!jsonOnStandardOutput(flags.json)) console.log(formatSeeds(result));
    return await writeJson(flags.json, seedsJson(result));
  }
  const result = await runOnce(settings);
  // The run has succeeded by now, even where nothing may be written beside its folder.
  if (result.exported && answersTexts(settings.task)) {
    await noteLastModel(result.exported.dir).catch((error) =>
      console.error(`${errorMessage(error)}; infer and bench will need --model`)
    );
  }
  if (!jsonOnStandardOutput(flags.json)) console.log(formatResult(result, settings.task));
  await writeJson(flags.json, finetuneJson(result));
}

/** Prints what flags or recipe come to; what no optimiser has is refused rather than printed. */
async function printRecipe(settings: FinetuneSettings): Promise<void> {
  const { modifiersOf } = await import("../finetune/run_modifiers.ts");
  const { optimizerAskedFor } = await import("../finetune/timeline.ts");
  const { writeRecipe } = await import("../recipes/write.ts");
  const modifiers = await modifiersOf(settings);
  optimizerAskedFor(modifiers);
  console.log(writeRecipe(modifiers).trimEnd());
}

/** Searches for a learning rate, and writes the chart beside where the run will be. */
async function findRate(
  settings: FinetuneSettings,
  json: string | undefined,
  { signal, interruptedBy }: Interruption,
): Promise<void> {
  const display = new ProgressDisplay();
  interruptedBy((text) => display.note(text));
  const found = await findLearningRate(settings, {
    signal,
    listener: {
      message: (text) => display.note(text),
      data: (progress) => display.data(progress),
      compiling: (progress) => display.compiling(progress),
    },
    point: ({ learningRate, smoothed }, index) => {
      if (index % 10 === 0) {
        display.note(`step ${index}: rate ${learningRate.toExponential(2)}, loss ${smoothed.toFixed(4)}`);
      }
    },
  }).finally(() => display.stop());
  const { finderReport, formatFinder } = await import("../finetune/report/finder_report.ts");
  const page = `${settings.out}-learning-rate.html`;
  await ensureFolder(dirname(page));
  await writeFileAtomic(page, await finderReport(found, settings.train ?? "the embedded reviews"));
  if (!jsonOnStandardOutput(json)) console.log(`\n${formatFinder(found)}\n\nchart: ${page}`);
  await writeJson(json, { ...found, chart: page });
}

/** The user's wish to stop. */
interface Interruption {
  readonly signal: AbortSignal;
  /** Says who is to tell of it. */
  interruptedBy(tell: (text: string) => void): void;
}

/** Aborts on the first Ctrl-C, and ends the process on the second. Gives what is to be told of the first. */
function stopOnInterrupt(): Interruption {
  const controller = new AbortController();
  let [interrupts, say] = [0, (text: string) => console.error(text)];
  Deno.addSignalListener("SIGINT", () => {
    if (++interrupts > 1) Deno.exit(1);
    say("stopping; once more stops at once");
    controller.abort();
  });
  return { signal: controller.signal, interruptedBy: (tell) => say = tell };
}

async function runShown(
  settings: FinetuneSettings,
  { signal, interruptedBy }: Interruption,
): Promise<FinetuneResult> {
  const display = new ProgressDisplay();
  interruptedBy((text) => display.note(text));
  return await finetune(settings, {
    signal,
    listener: {
      message: (text) => display.note(text),
      data: (progress) => display.data(progress),
      compiling: (progress) => display.compiling(progress),
      step: (progress) => display.step(progress),
      evaluation: (record, epoch) =>
        display.note(
          `epoch ${epoch.toFixed(2)}: ${describeEvaluation(record)}, ` +
            `sparsity ${(record.sparsity * 100).toFixed(1)} %`,
        ),
    },
  }).finally(() => display.stop());
}

if (import.meta.main) await runCommand(finetuneCommand(), run);

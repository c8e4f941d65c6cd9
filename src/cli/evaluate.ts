/**
 * `deno task evaluate`: how good a model is on a labelled file, and how far its scores can be trusted.
 * @module
 */
import { evaluate, type ModelEvaluation } from "../../mod.ts";
import { InputError } from "../core/errors.ts";
import { describeEvaluation, jsonName, metricsJson } from "../evaluate/metrics.ts";
import {
  type Command,
  jsonOnStandardOutput,
  makeCommand,
  noteFallback,
  parseNumber,
  runCommand,
  writeJson,
} from "./command.ts";
import { chosenModel } from "./last_model.ts";

/** The command with all its flags. */
export function evaluateCommand(): Command {
  return makeCommand("evaluate", "Evaluate a model: task metrics, calibration, robustness.")
    .option("--model <dir|hub id>", "model folder (default: the last one fine-tuned here)")
    .option("--eval <file>", "labelled data: .tsv, .csv, .jsonl, each also .gz")
    .option("--text-column <name>", "column of the text (or a number, for files without a header)")
    .option("--pair-column <name>", "column of the second text")
    .option("--label-column <name>", "column of the label")
    .option("--max-length <tokens>", "longest sequence (default: what the model can take)", parseNumber)
    .option("--max-eval-samples <n>", "use the first n rows", parseNumber)
    .option("--threads <n>", "worker threads (default: one for each usable core)", parseNumber)
    .option("--isa <name>", "instruction set (default: the fastest there is)");
}

/** The evaluation for the reader. */
export function formatEvaluation(evaluation: ModelEvaluation): string {
  const { calibration, robustness } = evaluation;
  const percent = (value: number) => `${(value * 100).toFixed(2)} %`;
  return [
    `${evaluation.examples} examples, ${evaluation.examplesPerSecond.toFixed(0)} a second`,
    `  ${describeEvaluation(evaluation)}`,
    ...(calibration
      ? [
        `  calibration: mean confidence ${percent(calibration.meanConfidence)}, ` +
        `expected calibration error ${percent(calibration.expectedCalibrationError)}, ` +
        `Brier score ${calibration.brierScore.toFixed(4)}`,
      ]
      : []),
    ...robustness.map(({ perturbation, primary, unchanged }) =>
      `  ${perturbation}: ${primary.name} ${primary.value.toFixed(4)}` +
      (unchanged === undefined ? "" : `, ${percent(unchanged)} of the answers unchanged`)
    ),
  ].join("\n");
}

async function run(command: Command): Promise<void> {
  const flags = command.opts();
  noteFallback(flags.isa);
  if (flags.eval === undefined) throw new InputError("--eval is missing: wanted a labelled file");
  const evaluation = await evaluate({
    model: await chosenModel(flags.model),
    evaluation: flags.eval,
    textColumn: flags.textColumn,
    pairColumn: flags.pairColumn,
    labelColumn: flags.labelColumn,
    maximumSamples: flags.maxEvalSamples,
    maximumLength: flags.maxLength,
    threads: flags.threads,
    isa: flags.isa,
  });
  if (!jsonOnStandardOutput(flags.json)) console.log(formatEvaluation(evaluation));
  const { calibration } = evaluation;
  await writeJson(flags.json, {
    examples: evaluation.examples,
    loss: evaluation.loss,
    ...metricsJson(evaluation),
    ...(calibration && {
      calibration: {
        expected_calibration_error: calibration.expectedCalibrationError,
        brier_score: calibration.brierScore,
        mean_confidence: calibration.meanConfidence,
      },
    }),
    robustness: evaluation.robustness.map(({ perturbation, primary, unchanged }) => ({
      perturbation,
      [jsonName(primary.name)]: primary.value,
      ...(unchanged !== undefined && { unchanged }),
    })),
    examples_per_second: evaluation.examplesPerSecond,
  });
}

if (import.meta.main) await runCommand(evaluateCommand(), run);

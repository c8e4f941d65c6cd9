/**
 * Forecasting a series, from its file on: it needs no tokenizer, and starts from random weights.
 * @module
 */
import { createHash } from "node:crypto";
import { type ForecasterConfig, forecasterConfig } from "../../../models/forecaster.ts";
import { bytesOf } from "../../checkpoint/safetensors.ts";
import { InputError } from "../../core/errors.ts";
import { type ForecastData, type ForecastWindow, forecastWindows, readSeries } from "../../data/series.ts";
import { forecastingDefaults } from "../options.ts";
import { evaluateForecasts, forecaster } from "./forecasting.ts";
import type { FinetuneTask } from "./task.ts";

/** What to forecast from which file, by which model. */
export interface ForecastingOptions {
  /** Path of the series. */
  readonly series: string;
  /** Steps that are seen; default that of `forecastingDefaults`. */
  readonly inputLength?: number;
  /** Steps that are forecast; default that of `forecastingDefaults`. */
  readonly horizon?: number;
  /** Column that is forecast, or `all`; default: the last, as ETT's OT. */
  readonly target?: string;
  /** Rows to read at most. */
  readonly limit?: number;
  /** Part of the series that is evaluated on; default `validation`. */
  readonly evaluation?: "validation" | "test";
  /** Shape and constants that are to differ from the usual small model's. */
  readonly model?: Partial<Omit<ForecasterConfig, "inputLength" | "horizon" | "variables" | "targets">>;
  /** Tile of the machine that trains (`usualTile`). */
  readonly tile: number;
}

/** A forecasting task and what a run wants to know of it beside. */
export interface ForecastingTask extends FinetuneTask<ForecastWindow> {
  readonly config: ForecasterConfig;
  /** What `config.json` of the result will hold. */
  readonly configJson: Readonly<Record<string, unknown>>;
  /** What the data are like, for the reader. */
  readonly dataReport: string;
  /** Short hashes of what is learned from, and evaluated on. */
  readonly digests: { readonly train: string; readonly evaluation: string };
}

/** Reads the series. Throws `InputError` for a file or an option that cannot be used. */
export async function forecastingTask(options: ForecastingOptions): Promise<ForecastingTask> {
  const { inputLength = forecastingDefaults.inputLength, horizon = forecastingDefaults.horizon } = options;
  const { evaluation: part = "validation", tile } = options;
  for (const [name, value] of Object.entries({ inputLength, horizon })) {
    if (Number.isSafeInteger(value) && value > 0) continue;
    throw new InputError(`${name} is ${value}: wanted a whole number of at least 1`);
  }
  const series = await readSeries(options.series, options.limit);
  const { variables } = series;
  const targets = options.target === "all" ? variables : [options.target ?? variables.at(-1)!];
  const data = forecastWindows(series, { inputLength, horizon, targets });
  const config = forecasterConfig({ inputLength, horizon, variables, targets }, options.model);
  const { train } = data;
  const evaluation = data[part];
  const digestOf = (...parts: unknown[]) =>
    createHash("sha256").update(bytesOf(series.values)).update(JSON.stringify(parts)).digest("hex").slice(
      0,
      12,
    );
  const count = ({ lengths }: typeof train) => lengths.length.toLocaleString("en-US");
  return {
    model: forecaster(config, tile),
    train,
    evaluation,
    evaluate: (trainer, limit) => evaluateForecasts(trainer, evaluation, limit),
    config,
    configJson: forecasterConfigJson(config, data),
    dataReport: `series      ${series.steps.toLocaleString("en-US")} steps of ${variables.join(", ")}; ` +
      `${inputLength} steps tell the next ${horizon} of ${targets.join(", ")}\n` +
      `train       ${count(train)} windows\n${part.padEnd(11)} ${count(evaluation)} windows`,
    digests: {
      train: digestOf(variables, targets, inputLength, horizon),
      evaluation: digestOf(variables, targets, inputLength, horizon, part),
    },
  };
}

/** The fields of a forecaster's `config.json`, with the scaling that its values want. */
function forecasterConfigJson(
  config: ForecasterConfig,
  { scaling }: ForecastData,
): Record<string, unknown> {
  return {
    architectures: ["LacunaForecaster"],
    model_type: "lacuna-forecaster",
    hidden_size: config.hiddenSize,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    intermediate_size: config.intermediateSize,
    layer_norm_eps: config.layerNormEpsilon,
    hidden_dropout_prob: config.hiddenDropout,
    attention_probs_dropout_prob: config.attentionDropout,
    initializer_range: config.initializerRange,
    input_length: config.inputLength,
    horizon: config.horizon,
    variables: config.variables,
    targets: config.targets,
    means: scaling.map(({ mean }) => mean),
    deviations: scaling.map(({ deviation }) => deviation),
  };
}

/**
 * A small transformer encoder that forecasts a series: each step of time is a column, what was measured at it and when
 * that was are projected to the hidden size, and the last column of the last layer gives the whole horizon at once.
 *
 * Its layers are BERT's, under the same names, so that whatever prunes an encoder prunes this one too.
 * @module
 */
import { type Graph, indices, rows, tiled, type Value } from "../src/graph/graph.ts";
import { embedding } from "../src/kernels/embedding/operation.ts";
import { meanSquaredError } from "../src/kernels/mean_squared_error/operation.ts";
import { selectColumns } from "../src/kernels/select_columns/operation.ts";
import { type EncoderConfig, encoderInputs, type EncoderOptions, encoderParts } from "./encoder.ts";

/** Shapes and constants of a forecaster. */
export interface ForecasterConfig extends EncoderConfig {
  /** Steps of time that are seen. */
  readonly inputLength: number;
  /** Steps behind them that are forecast. */
  readonly horizon: number;
  /** What is measured at each step. */
  readonly variables: readonly string[];
  /** Those of the variables that are forecast. */
  readonly targets: readonly string[];
  /** Standard deviation of newly initialised weights. */
  readonly initializerRange: number;
}

/** Names of the step's inputs; `finetune/tasks/forecasting.ts` fills them. */
export const forecasterInputs = {
  /** f32 tiled [variables, columns], 0 for padding. */
  values: "values",
  /** i32 [columns]: step in its window, −1 for padding. */
  positionIds: "positionIds",
  /** i32 [columns]: hour of the day, −1 for padding. */
  hourIds: "hourIds",
  /** i32 [columns]: day of the week, −1 for padding. */
  weekdayIds: "weekdayIds",
  /** i32 [sequences]: column of each window's last step, −1 for padding. */
  lastSteps: "lastSteps",
  /** f32 tiled [horizon · targets, sequences]: what came then, step by step; of padding any number. */
  targets: "targets",
  ...encoderInputs,
} as const;

/** Results of a forecaster's graph. */
export interface ForecasterGraph {
  /** [horizon · targets, sequences] */
  readonly forecast: Value;
  /** Output of each encoder layer, [hiddenSize, columns]. */
  readonly hidden: readonly Value[];
  /** Mean squared error. */
  readonly loss: Value;
}

/** A small model: the one of MetaAdamW's comparison (arXiv 2605.04055), 128 hidden units in two layers. */
export function forecasterConfig(
  shape: Pick<ForecasterConfig, "inputLength" | "horizon" | "variables" | "targets">,
  changes: Partial<ForecasterConfig> = {},
): ForecasterConfig {
  return {
    hiddenSize: 128,
    layers: 2,
    heads: 8,
    intermediateSize: 512,
    layerNormEpsilon: 1e-5,
    hiddenDropout: 0.1,
    attentionDropout: 0.1,
    initializerRange: 0.02,
    ...shape,
    ...changes,
  };
}

/** Adds a forecaster and its loss to a graph. */
export function buildForecaster(
  graph: Graph,
  config: ForecasterConfig,
  options: EncoderOptions,
): ForecasterGraph {
  const { hiddenSize, variables, inputLength, horizon, targets } = config;
  const { columns, sequences } = options;
  const { linear, drop, normalise, layers } = encoderParts(graph, config, options);
  const values = graph.input(forecasterInputs.values, tiled(variables.length, columns));
  const table = (name: string, size: number) =>
    graph.parameter(`forecaster.embeddings.${name}_embeddings.weight`, rows(size, hiddenSize));
  const list = (name: string) => graph.input(name, indices(columns));
  const times = graph.apply(embedding, {}, [
    table("position", inputLength),
    table("hour", 24),
    table("weekday", 7),
    list(forecasterInputs.positionIds),
    list(forecasterInputs.hourIds),
    list(forecasterInputs.weekdayIds),
  ])[0];
  const projected = linear(values, "forecaster.embeddings.value_projection", hiddenSize);
  const input = normalise(projected, "forecaster.embeddings.LayerNorm", times);
  const hidden = layers(drop(input, config.hiddenDropout), "forecaster.encoder");

  const lastSteps = graph.input(forecasterInputs.lastSteps, indices(sequences));
  const last = graph.apply(selectColumns, {}, [hidden.at(-1)!, lastSteps])[0];
  const forecast = linear(last, "forecast", horizon * targets.length);
  graph.output("forecast", forecast);
  const truth = graph.input(forecasterInputs.targets, forecast.type);
  const loss = graph.apply(meanSquaredError, {}, [forecast, lastSteps, truth, undefined])[0];
  return { forecast, hidden, loss };
}

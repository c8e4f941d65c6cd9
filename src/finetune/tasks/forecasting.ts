/**
 * Training a forecaster on windows of a series.
 * @module
 */
import { buildForecaster, type ForecasterConfig, forecasterInputs } from "../../../models/forecaster.ts";
import { type BatchLimit, evaluationBatches } from "../../data/batches.ts";
import type { ExampleSet } from "../../data/example_set.ts";
import type { ForecastWindow } from "../../data/series.ts";
import type { Evaluation } from "../../evaluate/metrics.ts";
import { ErrorSums, forecastEvaluation } from "../../evaluate/regression_metrics.ts";
import { tiledIndex } from "../../graph/layout.ts";
import { initialiseParameter } from "../parameters.ts";
import type { Trainer } from "../trainer.ts";
import { indexView, type InputArray, numberView, type TrainingModel } from "../training_model.ts";

/** A forecaster as the trainer takes it. `tile` is that of the machine it is trained on (`usualTile`). */
export function forecaster(config: ForecasterConfig, tile: number): TrainingModel<ForecastWindow> {
  const { inputLength, horizon } = config;
  const [variables, outputs] = [config.variables.length, horizon * config.targets.length];
  const steady = { ...config, hiddenDropout: 0, attentionDropout: 0 };
  return {
    build(graph, { dropout, ...request }) {
      const { hidden, loss } = buildForecaster(graph, dropout ? config : steady, request);
      return { loss, checkpoints: hidden.slice(0, -1) };
    },
    inputs({ columns, sequences }) {
      const list = (length: number): InputArray => ({ dtype: "i32", length });
      return {
        [forecasterInputs.values]: { dtype: "f32", length: variables * columns },
        [forecasterInputs.positionIds]: list(columns),
        [forecasterInputs.hourIds]: list(columns),
        [forecasterInputs.weekdayIds]: list(columns),
        [forecasterInputs.lastSteps]: list(sequences),
        [forecasterInputs.targets]: { dtype: "f32", length: outputs * sequences },
        [forecasterInputs.offsets]: list(sequences + 1),
      };
    },
    sizeOf: (batch) => ({ columns: inputLength * batch.length, sequences: batch.length }),
    fill(batch, views) {
      const values = numberView(views, forecasterInputs.values).fill(0);
      const targets = numberView(views, forecasterInputs.targets).fill(0);
      const list = (name: string) => indexView(views, name).fill(-1);
      const positions = list(forecasterInputs.positionIds);
      const hours = list(forecasterInputs.hourIds);
      const weekdays = list(forecasterInputs.weekdayIds);
      const lastSteps = list(forecasterInputs.lastSteps);
      const offsets = indexView(views, forecasterInputs.offsets).fill(inputLength * batch.length);
      batch.forEach((window, sequence) => {
        const begin = inputLength * sequence;
        offsets[sequence] = begin;
        lastSteps[sequence] = begin + inputLength - 1;
        hours.set(window.hours, begin);
        weekdays.set(window.weekdays, begin);
        for (let step = 0; step < inputLength; step++) {
          positions[begin + step] = step;
          for (let variable = 0; variable < variables; variable++) {
            values[tiledIndex(variable, begin + step, variables, tile)] =
              window.values[step * variables + variable];
          }
        }
        window.targets.forEach((value, output) =>
          targets[tiledIndex(output, sequence, outputs, tile)] = value
        );
      });
    },
    initialise: (slot, target, seed) =>
      initialiseParameter(slot, target, { range: config.initializerRange, seed, padTokenId: 0 }),
  };
}

/** Errors of the forecasts of standardised values, over all steps of the horizon and all targets. */
export async function evaluateForecasts(
  trainer: Trainer<ForecastWindow>,
  set: ExampleSet<ForecastWindow>,
  limit: BatchLimit,
): Promise<Evaluation> {
  const errors = new ErrorSums();
  for (const indices of evaluationBatches(set.lengths, limit)) {
    const batch = Array.from(indices, set.at);
    const { outputs } = await trainer.evaluate(batch);
    const { values, stride } = outputs.get("forecast")!;
    batch.forEach(({ targets }, column) =>
      errors.add(targets.map((_, output) => values[output * stride + column]), targets)
    );
  }
  return forecastEvaluation(errors, set.lengths.length);
}

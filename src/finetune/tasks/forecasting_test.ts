import assert from "node:assert/strict";
import { forecasterConfig } from "../../../models/forecaster.ts";
import { forecastWindows, type Series } from "../../data/series.ts";
import { availableMachines } from "../../machines/mod.ts";
import { usualTile } from "../../plan/plan.ts";
import { evaluateForecasts, forecaster } from "./forecasting.ts";
import { checkModelGradients } from "./gradient_check.ts";
import { tinyTrainer, trainSteps } from "../tiny_trainer.ts";

const shape = { inputLength: 8, horizon: 3, variables: ["wave", "slope"], targets: ["slope", "wave"] };
const config = forecasterConfig(shape, {
  hiddenSize: 16,
  heads: 2,
  layers: 1,
  intermediateSize: 32,
  initializerRange: 0.2,
});

/** A wave of ten steps, and a saw tooth of the day's hours. */
const series: Series = {
  path: "made up",
  variables: shape.variables,
  steps: 400,
  values: Float64Array.from(
    { length: 800 },
    (_, i) => i % 2 === 0 ? Math.sin(Math.floor(i / 2) * 2 * Math.PI / 10) : Math.floor(i / 2) % 24,
  ),
  hours: Uint8Array.from({ length: 400 }, (_, step) => step % 24),
  weekdays: Uint8Array.from({ length: 400 }, (_, step) => Math.floor(step / 24) % 7),
  stepHours: 1,
};

Deno.test("the forecaster's gradients are central differences", () => {
  const { train } = forecastWindows(series, shape);
  const batch = [train.at(0), train.at(77)];
  const loss = checkModelGradients(forecaster(config, 32), batch, { columns: 32, sequences: 32 });
  assert.ok(loss > 0 && loss < 100, `${loss}`);
});

Deno.test("a tiny forecaster learns a wave and a saw tooth, alike for any workers", async () => {
  const { train, validation } = forecastWindows(series, shape);
  const batches = Array.from(
    { length: 6 },
    (_, batch) => Array.from({ length: 36 }, (_, i) => train.at(batch + 6 * i)),
  );
  const weights: Float32Array[] = [];
  for (const workers of [1, 3]) {
    const model = forecaster(config, usualTile(availableMachines()[0].lanes));
    const trainer = await tinyTrainer(model, { maximumSequences: 36, maximumTokens: 36 * 8, workers });
    const losses = await trainSteps(trainer, batches, 60, 1e-2);
    assert.ok(losses[0] > 0.5 && losses.at(-1)! < losses[0] / 4, `${losses[0]} to ${losses.at(-1)}`);
    const limit = { sequences: 36, tokens: Infinity };
    const { loss, metrics, examples } = await evaluateForecasts(trainer, validation, limit);
    assert.equal(examples, validation.lengths.length);
    assert.ok(loss < 0.3 && metrics.mae < 0.5, JSON.stringify(metrics));
    const one = Array.from({ length: 36 }, (_, index) => validation.at(index));
    const { loss: batchLoss } = await trainer.evaluate(one);
    const first = { lengths: new Int32Array(36).fill(8), at: validation.at };
    const { loss: found } = await evaluateForecasts(trainer, first, limit);
    assert.ok(Math.abs(found - batchLoss) < 1e-5 * batchLoss, `${found}, the kernel says ${batchLoss}`);
    weights.push(trainer.weights.slice());
    await trainer.dispose();
  }
  assert.deepEqual(weights[0], weights[1]);
});

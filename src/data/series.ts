/**
 * Series of measurements, and windows of them to learn forecasts from.
 *
 *     const series = await readSeries("ETTh1.csv.gz");
 *     const { train, validation, test } = forecastWindows(series, { inputLength: 96, horizon: 24, targets: ["OT"] });
 *
 * Parts and scaling are those of Informer (Zhou et al., arXiv 2012.07436): 12 months of 30 days to train on, 4 to validate
 * with and 4 to test with; all values are standardised with mean and deviation of the first part.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { ExampleSet } from "./example_set.ts";
import { readRows, type Row } from "./rows.ts";

/** Measurements at even distances in time. */
export interface Series {
  readonly path: string;
  /** What is measured. */
  readonly variables: readonly string[];
  /** Points in time. */
  readonly steps: number;
  /** [steps, variables], row-major. */
  readonly values: Float64Array;
  /** [steps]: 0 to 23. */
  readonly hours: Uint8Array;
  /** [steps]: 0, Sunday, to 6. */
  readonly weekdays: Uint8Array;
  /** Hours between two steps. */
  readonly stepHours: number;
}

/**
 * Reads a table with a column `date` (`2016-07-01 00:00:00`) and numbers in all others. Throws InputError with the line
 * where a date or a number is none, or dates are not evenly spaced.
 */
export async function readSeries(path: string, limit = Infinity): Promise<Series> {
  const { columns, rows } = await readRows(path, { header: true, limit });
  const date = columns.findIndex((name) => name.toLowerCase() === "date");
  if (date < 0) throw new InputError(`${path} has no column "date"; it has ${columns.join(", ")}`);
  if (rows.length < 2) throw new InputError(`${path} has ${rows.length} row, wanted at least 2`);
  const variables = columns.filter((_, index) => index !== date);
  if (variables.length === 0) {
    throw new InputError(`${path} has no column but ${columns[date]}: wanted numbers beside it`);
  }
  const times = rows.map((row) => timeOf(path, row, date));
  const stepTime = times[1] - times[0];
  if (!(stepTime > 0)) throw new InputError(`${path} line ${rows[1].line} is not later than the line before`);
  times.forEach((time, step) => {
    if (step === 0 || time - times[step - 1] === stepTime) return;
    throw new InputError(
      `${path} line ${rows[step].line} is ${(time - times[step - 1]) / hour} hours after the line before, ` +
        `wanted ${stepTime / hour}`,
    );
  });
  const values = rows.flatMap((row) =>
    row.fields.flatMap((field, index) => index === date ? [] : [numberOf(path, row, columns[index], field)])
  );
  const dates = times.map((time) => new Date(time));
  return {
    path,
    variables,
    steps: rows.length,
    values: Float64Array.from(values),
    hours: Uint8Array.from(dates, (date) => date.getUTCHours()),
    weekdays: Uint8Array.from(dates, (date) => date.getUTCDay()),
    stepHours: stepTime / hour,
  };
}

const hour = 3_600_000;

function timeOf(path: string, { line, fields }: Row, index: number): number {
  const text = String(fields[index]);
  // As if it were UTC, where no hour is left out or comes twice.
  const time = /^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?)?$/.test(text)
    ? Date.parse(text.length > 10 ? `${text.replace(" ", "T")}Z` : text)
    : NaN;
  if (!Number.isNaN(time)) return time;
  throw new InputError(
    `${path} line ${line} has the date ${JSON.stringify(text)}, wanted one like 2016-07-01 00:00:00`,
  );
}

function numberOf(path: string, { line }: Row, column: string, field: unknown): number {
  const value = typeof field === "string" && field.trim() === "" ? NaN : Number(field);
  if (Number.isFinite(value)) return value;
  throw new InputError(
    `${path} line ${line} has ${JSON.stringify(field)} in ${JSON.stringify(column)}, wanted a number`,
  );
}

/** What is to be forecast from what. */
export interface ForecastOptions {
  /** Steps that are seen. */
  readonly inputLength: number;
  /** Steps behind them that are forecast. */
  readonly horizon: number;
  /** Variables that are forecast; all of them are seen. */
  readonly targets: readonly string[];
}

/** An example: what is seen and what comes then. All views of the series; values standardised. */
export interface ForecastWindow {
  /** [inputLength, variables], row-major. */
  readonly values: Float32Array;
  /** [inputLength] */
  readonly hours: Uint8Array;
  /** [inputLength] */
  readonly weekdays: Uint8Array;
  /** [horizon, targets], row-major. */
  readonly targets: Float32Array;
}

/** A series cut into parts, and these into windows, one from each step. */
export interface ForecastData {
  readonly train: ExampleSet<ForecastWindow>;
  readonly validation: ExampleSet<ForecastWindow>;
  readonly test: ExampleSet<ForecastWindow>;
  /** What was subtracted from each variable, and what it was divided by. */
  readonly scaling: readonly { readonly mean: number; readonly deviation: number }[];
}

/**
 * Cuts a series into 12, 4 and 4 months of 30 days; one that is shorter, into as many twentieths. Windows for validation
 * and test see back into the part before. Throws InputError when a part has no room for a window, or a target is
 * no variable.
 */
export function forecastWindows(series: Series, options: ForecastOptions): ForecastData {
  const { path, variables, steps } = series;
  const { inputLength, horizon } = options;
  const targets = options.targets.map((name) => {
    const index = variables.indexOf(name);
    if (index >= 0) return index;
    throw new InputError(`${path} has no column ${JSON.stringify(name)}; it has ${variables.join(", ")}`);
  });
  const month = Math.min(Math.round(30 * 24 / series.stepHours), Math.floor(steps / 20));
  const parts = {
    train: [0, 12 * month],
    validation: [12 * month, 16 * month],
    test: [16 * month, 20 * month],
  };
  const scaling = scalingOf(series, 12 * month);
  const width = variables.length;
  const values = Float32Array.from(
    series.values,
    (value, index) => (value - scaling[index % width].mean) / scaling[index % width].deviation,
  );
  const targetValues = new Float32Array(steps * targets.length);
  for (let step = 0; step < steps; step++) {
    targets.forEach((variable, index) =>
      targetValues[step * targets.length + index] = values[step * width + variable]
    );
  }
  const windows = (name: keyof typeof parts): ExampleSet<ForecastWindow> => {
    const [begin, end] = parts[name];
    const first = Math.max(0, begin - inputLength);
    const count = end - first - inputLength - horizon + 1;
    if (count < 1) {
      throw new InputError(
        `${path} has ${steps} steps, of which ${name} gets ${end - begin}: wanted at least ` +
          `${
            name === "train" ? inputLength + horizon : horizon
          }, for inputs of ${inputLength} and ${horizon} to forecast`,
      );
    }
    return {
      lengths: new Int32Array(count).fill(inputLength),
      at(index) {
        const [seen, then] = [first + index, first + index + inputLength];
        return {
          values: values.subarray(seen * width, then * width),
          hours: series.hours.subarray(seen, then),
          weekdays: series.weekdays.subarray(seen, then),
          targets: targetValues.subarray(then * targets.length, (then + horizon) * targets.length),
        };
      },
    };
  };
  return { train: windows("train"), validation: windows("validation"), test: windows("test"), scaling };
}

/** Mean and standard deviation (of all, not of a sample) over the first steps; a constant is divided by 1. */
function scalingOf({ variables, values }: Series, steps: number): ForecastData["scaling"] {
  const width = variables.length;
  return variables.map((_, variable) => {
    let [sum, squares] = [0, 0];
    for (let step = 0; step < steps; step++) sum += values[step * width + variable];
    const mean = sum / steps;
    for (let step = 0; step < steps; step++) squares += (values[step * width + variable] - mean) ** 2;
    return { mean, deviation: Math.sqrt(squares / steps) || 1 };
  });
}

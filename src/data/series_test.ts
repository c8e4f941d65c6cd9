import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { InputError } from "../core/errors.ts";
import { exists } from "../core/files.ts";
import { forecastWindows, readSeries, type Series } from "./series.ts";

/** A table of `steps` hours: a rises by 1 an hour, b is constant. */
function table(steps: number): string {
  const rows = Array.from({ length: steps }, (_, step) => {
    const date = new Date(Date.UTC(2020, 0, 5) + step * 3_600_000).toISOString();
    return `${date.slice(0, 19).replace("T", " ")},${step},7`;
  });
  return ["date,a,b", ...rows].join("\n") + "\n";
}

async function read(content: string): Promise<Series> {
  const path = await Deno.makeTempFile({ suffix: ".csv" });
  try {
    await Deno.writeTextFile(path, content);
    return await readSeries(path);
  } finally {
    await Deno.remove(path);
  }
}

Deno.test("readSeries reads numbers and what the dates say", async () => {
  const series = await read(table(26));
  assert.deepEqual(series.variables, ["a", "b"]);
  assert.deepEqual([...series.values.subarray(0, 6)], [0, 7, 1, 7, 2, 7]);
  assert.deepEqual([series.steps, series.stepHours], [26, 1]);
  assert.deepEqual([series.hours[0], series.hours[23], series.hours[24]], [0, 23, 0]);
  assert.deepEqual([series.weekdays[23], series.weekdays[24]], [0, 1], "a Sunday, then Monday");
});

Deno.test("readSeries names file and line of what is no number, no date or out of step", async () => {
  const good = table(3);
  const cases: [string, RegExp][] = [
    [good.replace("date", "time"), /\.csv has no column "date"; it has time, a, b$/],
    [good.replace("1,7", "x,7"), /\.csv line 3 has "x" in "a", wanted a number$/],
    [good.replace("1,7", ",7"), /\.csv line 3 has "" in "a", wanted a number$/],
    [
      good.replace("2020-01-05 01", "05.01.2020 01"),
      /\.csv line 3 has the date "05.01.2020 01:00:00", wanted/,
    ],
    [good.replace(" 02:", " 05:"), /\.csv line 4 is 4 hours after the line before, wanted 1$/],
    [good.replace(" 01:", " 00:"), /\.csv line 3 is not later than the line before$/],
    [
      "date\n2020-01-01 00:00:00\n2020-01-01 01:00:00\n",
      /\.csv has no column but date: wanted numbers beside it$/,
    ],
    [table(1), /\.csv has 1 row, wanted at least 2$/],
  ];
  for (const [content, message] of cases) {
    await assert.rejects(
      read(content),
      (error) => error instanceof InputError && message.test(error.message),
      `${message}`,
    );
  }
});

Deno.test("forecastWindows standardises with the training part, and parts do not share targets", async () => {
  const series = await read(table(100));
  const options = { inputLength: 4, horizon: 2, targets: ["a"] };
  const { train, validation, test, scaling } = forecastWindows(series, options);
  // 60, 20 and 20 steps; the later parts see 4 steps back.
  assert.deepEqual([train, validation, test].map(({ lengths }) => lengths.length), [55, 19, 19]);
  assert.ok(Math.abs(scaling[0].mean - 29.5) < 1e-12);
  assert.ok(Math.abs(scaling[0].deviation - Math.sqrt((60 ** 2 - 1) / 12)) < 1e-9);
  assert.deepEqual(scaling[1], { mean: 7, deviation: 1 });

  const raw = (value: number) => Math.round(value * scaling[0].deviation + scaling[0].mean);
  const window = validation.at(0);
  assert.deepEqual([...window.values].filter((_, i) => i % 2 === 0).map(raw), [56, 57, 58, 59]);
  assert.ok([...window.values].filter((_, i) => i % 2 === 1).every((value) => value === 0));
  assert.deepEqual([...window.targets].map(raw), [60, 61]);
  assert.deepEqual([...window.hours], [56 % 24, 57 % 24, 58 % 24, 59 % 24]);
  assert.deepEqual([...train.at(54).targets].map(raw), [58, 59], "the last of training");
  assert.deepEqual([...test.at(18).targets].map(raw), [98, 99]);
  assert.deepEqual([...forecastWindows(series, { ...options, targets: ["b", "a"] }).test.at(0).targets], [
    0,
    test.at(0).targets[0],
    0,
    test.at(0).targets[1],
  ]);
});

Deno.test("forecastWindows refuses unknown targets and windows longer than a part", async () => {
  const series = await read(table(100));
  const refuses = (options: Partial<Parameters<typeof forecastWindows>[1]>, message: RegExp) =>
    assert.throws(
      () => forecastWindows(series, { inputLength: 4, horizon: 2, targets: ["a"], ...options }),
      (error) => error instanceof InputError && message.test(error.message),
    );
  refuses({ targets: ["c"] }, /has no column "c"; it has a, b$/);
  refuses({ inputLength: 60 }, /has 100 steps, of which train gets 60: wanted at least 62/);
  refuses({ horizon: 21 }, /of which validation gets 20: wanted at least 21/);
});

const ett = fileURLToPath(new URL("../../../shared/data/ett/ETTh1.csv.gz", import.meta.url));

Deno.test("forecastWindows cuts ETTh1 as Informer does", async () => {
  if (!await exists(ett)) return console.log(`skipped: there is no ${ett}`);
  const series = await readSeries(ett);
  assert.deepEqual(series.variables, ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]);
  const { train, validation, test } = forecastWindows(series, {
    inputLength: 96,
    horizon: 24,
    targets: ["OT"],
  });
  assert.deepEqual([train, validation, test].map(({ lengths }) => lengths.length), [8521, 2857, 2857]);
});

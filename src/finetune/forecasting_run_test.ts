/** Runs that forecast a series: flags reach the windows, a run resumes, and what is about texts is refused. */
import assert from "node:assert/strict";
import { finetune, Interrupted } from "../../mod.ts";
import type { FinetuneSettings } from "./options.ts";
import { type Changes, refuses, resumesAt, TinyFolder } from "./tiny_run.ts";

/** Ten days of hours: a tide of twelve hours, and a load that rises with it. */
function tides(): string {
  const rows = Array.from({ length: 240 }, (_, hour) => {
    const date = new Date(Date.UTC(2016, 6, 1, hour)).toISOString().slice(0, 19).replace("T", " ");
    const tide = Math.sin(2 * Math.PI * hour / 12);
    return `${date},${tide.toFixed(4)},${(2 * tide + hour % 24).toFixed(4)}`;
  });
  return ["date,tide,load", ...rows].join("\n") + "\n";
}

const forecasting: Partial<FinetuneSettings> = {
  task: "forecasting",
  init: undefined,
  evaluation: undefined,
  maximumLength: undefined,
  inputLength: 8,
  horizon: 2,
  targetColumn: "tide",
  epochs: 1,
  batchSize: 32,
  sparsity: 0.5,
};

Deno.test("finetune forecasts the column it is told, from windows of the length it is told, and resumes", async () => {
  await using folder = await TinyFolder.create();
  const train = await folder.write("tides.csv", tides());
  const result = await resumesAt(folder, folder.settings({ ...forecasting, train }), 3);
  const config = JSON.parse(Deno.readTextFileSync(folder.at("out", "config.json")));
  assert.deepEqual([config.input_length, config.horizon, config.targets], [8, 2, ["tide"]]);
  assert.ok(result.evaluation!.metrics.mse > 0);
  assert.equal(result.sparsity.overall, 0.5);
  assert.equal(result.exported, undefined);
});

Deno.test("finetune forecasts a day from four, of the last column, unless told otherwise", async () => {
  await using folder = await TinyFolder.create();
  const train = await folder.write("tides.csv", tides().replaceAll(" ", "T"));
  const usual = { inputLength: undefined, horizon: undefined, targetColumn: undefined };
  const notes: string[] = [];
  const stop = new AbortController();
  const message = (text: string) => {
    notes.push(text);
    stop.abort();
  };
  await assert.rejects(
    finetune(folder.settings({ ...forecasting, ...usual, train }), {
      listener: { message },
      signal: stop.signal,
    }),
    Interrupted,
  );
  assert.match(notes.join("\n"), /96 steps tell the next 24 of load/);
});

Deno.test("finetune refuses windows that cannot be, and flags of another task", async () => {
  await using folder = await TinyFolder.create();
  const train = await folder.write("tides.csv", tides());
  const base = { ...forecasting, train };
  const texts =
    "wanted none with --task forecasting, which takes a series of numbers, --train, and evaluates on a part of it";
  const cases: [Changes, string | RegExp][] = [
    [{ ...base, inputLength: 0 }, "--input-length is 0: wanted a whole number of at least 1"],
    [{ ...base, horizon: 1.5 }, "--horizon is 1.5: wanted a whole number of at least 1"],
    [{ ...base, targetColumn: "moon" }, '/tides.csv has no column "moon"; it has tide, load'],
    [{ ...base, inputLength: 500 }, /tides\.csv/],
    [{ ...base, labelColumn: "tide" }, `--label-column is tide: ${texts}`],
    [{ ...base, maximumLength: 64 }, `--max-length is 64: ${texts}`],
    [{ ...base, init: "bert-tiny" }, `--init is bert-tiny: ${texts}`],
    [{ inputLength: 8 }, "--input-length is 8: wanted none but with --task forecasting"],
    [{ task: "masked-lm", horizon: 8 }, "--horizon is 8: wanted none but with --task forecasting"],
    [{ targetColumn: "label" }, "--target-column is label: wanted none but with --task forecasting"],
  ];
  for (const [changes, message] of cases) await refuses(folder, changes, message);
});

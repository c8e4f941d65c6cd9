/** Modes and their checks. */
import assert from "node:assert/strict";
import { InputError } from "../../core/errors.ts";
import { type MetaMode, type MetaOptions, metaOptions, warmupSteps } from "./options.ts";

Deno.test("metaOptions has the paper's constructor defaults, and the same without learning", () => {
  const paper = metaOptions("paper");
  const { layers, heads, feedForward, width, updateEvery, learningRate, normPenalty } = paper;
  assert.deepEqual([layers, heads, feedForward, width], [2, 4, 32, 8]);
  assert.deepEqual([updateEvery, learningRate, normPenalty], [100, 1e-4, 1e-4]);
  assert.deepEqual(metaOptions("frozen"), { ...paper, learns: false });
});

Deno.test("metaOptions takes null for what a mode has and shall not have", () => {
  const { lambda, ...sound } = metaOptions("sound");
  assert.equal(lambda, 0.5);
  assert.deepEqual(metaOptions("sound", { lambda: null as never }), sound);
  assert.deepEqual(metaOptions("sound", { lambda: undefined }), sound);
});

Deno.test("warmupSteps is an epoch in the paper, a tenth of the run when sound", () => {
  const run = { totalSteps: 95, stepsPerEpoch: 19 };
  assert.equal(warmupSteps(metaOptions("paper"), run), 19);
  assert.equal(warmupSteps(metaOptions("sound"), run), 10);
});

Deno.test("metaOptions refuses what makes no sense, in one line", () => {
  const refuses = (changes: Partial<MetaOptions>, wanted: string) =>
    assert.throws(
      () => metaOptions("sound", changes),
      (error) => error instanceof InputError && error.message === `MetaAdamW's ${wanted}`,
    );
  refuses({ heads: 0 }, "heads is 0: wanted a whole number of at least 1");
  refuses({ refreshEvery: 1.5 }, "refreshEvery is 1.5: wanted a whole number of at least 1");
  refuses({ alphaRange: 2.5 }, "alphaRange is 2.5: wanted a number from 0 to 2");
  refuses({ learningRate: NaN }, "learningRate is NaN: wanted a number of at least 0");
  refuses({ priorities: [1, -1, 1] }, "priorities is -1: wanted a number of at least 0");
  refuses({ fixed: { alpha: -1, beta: 1 } }, "fixed alpha is -1: wanted a number of at least 0");
  refuses({ validationFraction: 1 }, "validationFraction is 1: wanted a number above 0 and below 1");
  refuses(
    { grouping: "layers" as MetaOptions["grouping"] },
    'grouping is "layers": wanted original, fine_grained or single',
  );
  refuses({ learns: 1 as never }, "learns is 1: wanted true or false");
  refuses({ alphaRange: "1" as never }, 'alphaRange is "1": wanted a number from 0 to 2');
  refuses({ priorities: "123" as never }, 'priorities is "123": wanted three numbers');
  refuses({ fixed: 1 as never }, "fixed alpha is undefined: wanted a number of at least 0");
  assert.throws(
    () => metaOptions("paper", { rank: 3 } as Partial<MetaOptions>),
    /^InputError: MetaAdamW has no option rank, 3: wanted one of grouping, .*, validationFraction, lambda, fixed$/,
  );
  assert.throws(() => metaOptions("fast" as MetaMode), /mode is "fast": wanted sound, paper or frozen/);
});

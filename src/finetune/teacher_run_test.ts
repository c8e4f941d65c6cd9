/** Distillation over whole runs: who teaches, from when, what it changes, and what a stop leaves. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { finetune, type FinetuneSettings } from "../../mod.ts";
import { interruptAt, metricsOf, refuses, resumesAt, TinyFolder } from "./tiny_run.ts";

const short = {
  evaluation: undefined,
  epochs: 2,
  threads: 1,
  sparsity: 0.5,
  pruneBegin: 0.5,
  pruneEnd: 0.5,
} satisfies Partial<FinetuneSettings>;

const labels = { id2label: { 0: "negative", 1: "positive" } };

const answersAt = (out: string) => join(out, "training", "teacher.safetensors");

/** What a run's weights come to. */
async function weightsOf(folder: TinyFolder, changes: Partial<FinetuneSettings>): Promise<string> {
  const { out } = await finetune(folder.settings({ ...short, ...changes, overwrite: true }));
  return folder.snapshot(out).get("model.safetensors")!;
}

/** The losses of a run's steps. */
async function lossesOf(folder: TinyFolder, changes: Partial<FinetuneSettings>): Promise<number[]> {
  const losses: number[] = [];
  await finetune(folder.settings({ ...short, ...changes, overwrite: true }), {
    listener: { step: ({ loss }) => losses.push(loss) },
  });
  return losses;
}

Deno.test("a teacher folder counts by hardness and temperature, and not at all at hardness 0", async () => {
  await using folder = await TinyFolder.create();
  const teacher = await folder.writeModel("teacher", labels);
  const epoch = { epochs: 1 };
  const alone = await weightsOf(folder, epoch);
  assert.equal(await weightsOf(folder, { ...epoch, teacher, hardness: 0 }), alone);
  const seen = new Set([alone]);
  for (const [hardness, temperature] of [[0.5, 2], [1, 2], [1, 4]]) {
    seen.add(await weightsOf(folder, { ...epoch, teacher, hardness, temperature }));
  }
  assert.equal(seen.size, 4);
});

Deno.test("at hardness 1 labels do not matter, only the teacher's answers", async () => {
  await using folder = await TinyFolder.create();
  const teacher = await folder.writeModel("teacher", labels);
  const text = await Deno.readTextFile(folder.at("train.tsv"));
  const flipped = text.replace(
    /negative|positive/g,
    (label) => label === "negative" ? "positive" : "negative",
  );
  const train = await folder.write("flipped.tsv", flipped);
  const told = { teacher, hardness: 1 };
  assert.equal(await weightsOf(folder, { ...told, train }), await weightsOf(folder, told));
});

Deno.test("a run with a teacher folder goes on to the same bytes, and does not ask again", async () => {
  await using folder = await TinyFolder.create();
  const teacher = await folder.writeModel("teacher", labels);
  const settings = folder.settings({ ...short, evaluation: folder.at("eval.tsv"), teacher });
  await resumesAt(folder, settings, 4);
  // Tokenising is about 144 texts, the teacher answers those that are trained on.
  const asksIn = async (changes: Partial<FinetuneSettings>) => {
    let asks = false;
    await finetune({ ...settings, ...changes }, {
      listener: { data: ({ totalRows }) => asks ||= totalRows === 96 },
    });
    return asks;
  };
  assert.deepEqual([await asksIn({ overwrite: true }), await asksIn({ resume: true })], [true, false]);
});

Deno.test("a teacher that is another one by now ends a resumed run, and one that moved does not", async () => {
  await using folder = await TinyFolder.create();
  const teacher = await folder.writeModel("teacher", labels);
  const other = await folder.writeModel("other", { ...labels, layer_norm_eps: 1e-3 });
  await interruptAt(folder.settings({ ...short, teacher }), 4);
  const changed = { ...short, teacher: other, resume: true };
  await refuses(folder, changed, /teacher/);
  await Deno.rename(teacher, folder.at("moved"));
  const { steps } = await finetune(folder.settings({ ...short, teacher: folder.at("moved"), resume: true }));
  assert.equal(steps, 12);
});

Deno.test("dense teaches from the first pruning on: until then nothing is different", async () => {
  await using folder = await TinyFolder.create();
  const alone = await lossesOf(folder, {});
  const taught = await lossesOf(folder, { teacher: "dense", hardness: 1, temperature: 2 });
  assert.equal(alone.length, 12);
  assert.deepEqual(taught.slice(0, 6), alone.slice(0, 6));
  assert.notEqual(taught[6], alone[6]);
  const soft = await lossesOf(folder, { teacher: "dense", hardness: 1, temperature: 4 });
  assert.deepEqual(soft.slice(0, 6), alone.slice(0, 6));
  assert.notEqual(soft[6], taught[6]);
});

Deno.test("finetune says when the dense model is asked, and how good it is", async () => {
  await using folder = await TinyFolder.create();
  const said: string[] = [];
  const evaluation = folder.at("eval.tsv");
  const { out } = await finetune(folder.settings({ ...short, evaluation, teacher: "dense" }), {
    listener: { message: (text) => said.push(text) },
  });
  const [{ accuracy }] = metricsOf(out).filter(({ step }) => step === 6).map(({ metrics }) =>
    metrics as { accuracy: number }
  );
  const wanted = `the dense model of step 6 is asked, and teaches from here: accuracy ${accuracy.toFixed(4)}`;
  assert.ok(said.includes(wanted), said.join("\n"));
});

for (const stop of [3, 9]) {
  Deno.test(`a run with the dense teacher, stopped ${stop < 6 ? "before" : "after"} it was asked, goes on to the same bytes`, async () => {
    await using folder = await TinyFolder.create();
    const settings = folder.settings({ ...short, teacher: "dense", hardness: 0.75 });
    const { out } = await resumesAt(folder, settings, stop);
    const answers = (dir: string) => folder.snapshot(dir).get(join("training", "teacher.safetensors"));
    assert.ok(answers(out), answersAt(out));
    assert.equal(answers(`${out}-stopped`), answers(out));
  });
}

Deno.test("finetune refuses teachers that cannot teach, with one line", async () => {
  await using folder = await TinyFolder.create();
  const others = await folder.writeModel("others", { id2label: { 0: "bad", 1: "good" } });
  const three = await folder.writeModel("three", {
    id2label: { 0: "negative", 1: "neutral", 2: "positive" },
  });
  const regression = await folder.writeModel("regression", {
    id2label: { 0: "LABEL_0" },
    problem_type: "regression",
  });
  const masked = await folder.writeMaskedLm("masked");
  const broken = await folder.writeModel("broken", labels);
  await Deno.remove(join(broken, "model.safetensors"));
  const cases: [Partial<FinetuneSettings>, string | RegExp][] = [
    [
      { teacher: others },
      "teacher /others has the labels bad, good: wanted those of the student, negative, positive",
    ],
    [
      { teacher: three },
      "teacher /three has the labels negative, neutral, positive: wanted those of the student, negative, positive",
    ],
    [
      { teacher: regression },
      "teacher /regression has the labels LABEL_0: wanted those of the student, negative, positive",
    ],
    [
      { teacher: masked },
      /^teacher \/masked lacks bert.pooler.dense.weight, .*, classifier.bias: wanted a fine-tuned model$/,
    ],
    [{ teacher: folder.at("none") }, /^the teacher: There is no folder \/none, and it is no hub id such as /],
    [
      { teacher: folder.at("train.tsv") },
      "the teacher: /train.tsv is a file, wanted a model folder or a hub id",
    ],
    [{ teacher: broken }, /^the teacher: \/broken holds no weights, wanted model.safetensors/],
    [{ teacher: "" }, 'the flags: DistillationModifier: teacher is "": wanted a text'],
    [
      { teacher: "dense", sparsity: 0 },
      /^the flags: DistillationModifier: teacher is dense and nothing is pruned: wanted a model folder$/,
    ],
    [{ teacher: others, task: "masked-lm", model: masked, init: undefined }, /teacher/],
  ];
  for (const [changes, message] of cases) await refuses(folder, changes, message);
});

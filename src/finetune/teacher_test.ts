/** Teachers: their answers to training examples, how these reach a batch and a resumed run, and who may not teach. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { parseBertConfig } from "../../models/config.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import { InputError, Interrupted } from "../core/errors.ts";
import { encodedExamples } from "../data/example_set.ts";
import { encodedSetOf } from "../data/encoded_set.ts";
import { loadTokenizer } from "../data/tokenizer.ts";
import { packTiled } from "../graph/layout.ts";
import { Session } from "../infer/session.ts";
import { selectMachine } from "../machines/mod.ts";
import { type ExecutorFactory, InlineExecutor } from "../plan/executor.ts";
import { classifier } from "./tasks/classification.ts";
import { tinyTrainer, trainSteps } from "./tiny_trainer.ts";
import { askTrainer, loadTeacher, saveTeacher, type TeacherListener, TeacherLogits } from "./teacher.ts";
import { askModel, openTeacher, type Student } from "./teacher_model.ts";
import { tinyConfigJson, TinyFolder, tinyRows } from "./tiny_run.ts";

const labels = ["negative", "positive"];
const named = (...names: string[]) => ({ id2label: Object.fromEntries(names.entries()) });

/** The student of a model folder, and tokenised texts. */
async function studentOf(folder: string) {
  const { tokenizerFiles } = await openModel(folder);
  const tokenizer = loadTokenizer(tokenizerFiles);
  const encoded = tinyRows(70, 3).map(({ sentence, label }) => {
    const { ids, typeIds } = tokenizer.encode(sentence, undefined, 24);
    return { ids: Int32Array.from(ids), typeIds: Uint8Array.from(typeIds), label: labels.indexOf(label) };
  });
  const examples = encodedExamples(encodedSetOf(encoded));
  const longestExample = Math.max(...Array.from(examples.lengths));
  const student: Student = { labels, tokenizerFiles, longestExample };
  return { student, examples };
}

const createExecutor: ExecutorFactory = ({ machine, threads, arena }) =>
  Promise.resolve(new InlineExecutor(machine, threads, arena));
const running = { machine: selectMachine(undefined), threads: 1, createExecutor };

Deno.test("askModel gives the teacher's logits of every example, in the student's order of labels", async () => {
  await using folder = await TinyFolder.create();
  const path = await folder.writeModel("teacher", named("positive", "negative"));
  const { student, examples } = await studentOf(path);
  const teacher = await openTeacher(path, student);
  assert.deepEqual(teacher.outputs, [1, 0]);
  const told: [number, number][] = [];
  const progress = (done: number, total: number) => told.push([done, total]);
  const { values, outputs, digest } = await askModel(teacher, { ...running, examples, progress });
  assert.deepEqual([values.length, outputs], [140, 2]);
  assert.deepEqual(told, [[64, 70], [70, 70]]);

  const session = await Session.open(await openModel(path), running);
  for (const index of [0, 1, 33, 69]) {
    const [[positive, negative]] = await session.logits([examples.at(index)]);
    assert.deepEqual([...values.subarray(2 * index, 2 * index + 2)], [negative, positive]);
  }
  await session.dispose();

  assert.equal((await openTeacher(path, student)).digest, digest);
  const other = await folder.writeModel("other", { ...named("positive", "negative"), layer_norm_eps: 1e-5 });
  assert.notEqual((await openTeacher(other, student)).digest, digest, "another model has another digest");
});

Deno.test("askTrainer gives the logits that the model in training has now, and changes none of its numbers", async () => {
  await using folder = await TinyFolder.create();
  const { examples } = await studentOf(await folder.writeModel("teacher"));
  const config = parseBertConfig({ ...tinyConfigJson, vocab_size: 100, ...named(...labels) }, "tiny");
  const trainer = await tinyTrainer(classifier(config), { maximumSequences: 16, maximumTokens: 400 });
  await trainSteps(trainer, [Array.from({ length: 16 }, (_, i) => examples.at(i))], 3, 0.01);
  await trainer.settle();
  const weights = trainer.weights.slice();
  const limit = { sequences: 16, tokens: 400 };
  const teacher = await askTrainer(trainer, examples, limit);
  await trainer.settle();
  assert.deepEqual(trainer.weights, weights);
  assert.deepEqual([teacher.examples, teacher.outputs], [70, 2]);
  for (const index of [0, 42, 69]) {
    const { values, stride } = (await trainer.evaluate([examples.at(index)])).outputs.get("logits")!;
    const found = [...teacher.values.subarray(2 * index, 2 * index + 2)];
    assert.deepEqual(found, [values[0], values[stride]]);
  }
  assert.equal((await askTrainer(trainer, examples, limit)).digest, teacher.digest);

  await trainer.settle();
  trainer.weights.fill(NaN);
  await assert.rejects(askTrainer(trainer, examples, limit), (error) => {
    assert.ok(error instanceof InputError);
    assert.match(
      error.message,
      /^the teacher's answer to training example 0 is NaN: wanted a finite number$/,
    );
    return true;
  });
  await trainer.dispose();
});

Deno.test("An aborted teacher stops between two batches", async () => {
  await using folder = await TinyFolder.create();
  const path = await folder.writeModel("teacher", named(...labels));
  const { student, examples } = await studentOf(path);
  const controller = new AbortController();
  const listener: TeacherListener = { progress: () => controller.abort(), signal: controller.signal };
  const teacher = await openTeacher(path, student);
  await assert.rejects(askModel(teacher, { ...running, examples, ...listener }), (error) => {
    assert.ok(error instanceof Interrupted);
    assert.equal(error.message, "interrupted while the teacher answered, at example 64 of 70");
    return true;
  });
});

Deno.test("TeacherLogits.write lays the logits of a batch as the student's lie", () => {
  const teacher = new TeacherLogits(Float32Array.from({ length: 30 }, (_, i) => i), 3, "digest");
  const view = new Float32Array(3 * 8).fill(NaN);
  teacher.write([7, 0, 9, 2, 7], view, 4);
  // Row-major: a row for each output, a column for each example, then the padding.
  const columns = [21, 0, 27, 6, 21];
  const rowMajor = [0, 1, 2].flatMap((row) => [...columns.map((value) => value + row), 0, 0, 0]);
  const wanted = new Float32Array(24);
  packTiled(rowMajor, wanted, 3, 8, 4);
  assert.deepEqual(view, wanted);
  assert.throws(
    () => teacher.write(new Int32Array(9), view, 4),
    /Cannot write 9 columns of 3 logits into 24/,
  );
  assert.throws(() => teacher.write([0], new Float32Array(10), 4), RangeError);
  assert.throws(() => teacher.write([10], view, 4), /example 10.*10 examples/);
});

Deno.test("A run keeps its teacher's answers, and takes those of no other", async () => {
  await using folder = await TinyFolder.create();
  const out = folder.at("out");
  assert.equal(await loadTeacher(out, { examples: 4 }), undefined);
  const teacher = new TeacherLogits(Float32Array.of(1, 2, -3, 4, 0.1, 6, 7, 8), 2, "abc");
  await saveTeacher(out, teacher);
  assert.deepEqual(await loadTeacher(out, { examples: 4 }), teacher);
  assert.deepEqual(await loadTeacher(out, { examples: 4, digest: "abc" }), teacher);
  assert.equal(await loadTeacher(out, { examples: 4, digest: "def" }), undefined);
  await assert.rejects(
    loadTeacher(out, { examples: 5 }),
    /teacher.safetensors: logits have the shape \[4,2\], wanted \[5, outputs\] and a digest/,
  );
});

Deno.test("openTeacher refuses models that cannot teach the student, and says why", async () => {
  await using folder = await TinyFolder.create();
  const path = await folder.writeModel("teacher", named(...labels));
  const { student } = await studentOf(path);
  const cased = await folder.writeModel("cased", named(...labels));
  const tokenizerPath = join(cased, "tokenizer.json");
  const json = JSON.parse(await Deno.readTextFile(tokenizerPath));
  await Deno.writeTextFile(tokenizerPath, JSON.stringify({ ...json, truncation: { max_length: 7 } }));
  await openTeacher(cased, student);
  json.normalizer.lowercase = false;
  await Deno.writeTextFile(tokenizerPath, JSON.stringify(json));

  const cases: [string, Partial<Student>, string][] = [
    [
      path,
      { labels: ["bad", "good"] },
      "has the labels negative, positive: wanted those of the student, bad, good",
    ],
    [
      path,
      { labels: ["negative", "neutral", "positive"] },
      "has the labels negative, positive: wanted those of the student, negative, neutral, positive",
    ],
    [
      path,
      { longestExample: 128 },
      "has 24 positions: wanted at least 128, the tokens of the longest training example",
    ],
    [cased, {}, "is not the student's: wanted the same tokenizer.json"],
  ];
  for (const [teacher, changes, message] of cases) {
    await assert.rejects(openTeacher(teacher, { ...student, ...changes }), (error) => {
      assert.ok(error instanceof InputError);
      assert.ok(error.message.includes(`teacher ${teacher} ${message}`), error.message);
      return true;
    });
  }
});

/** `deno task infer` and `deno task export` as a user meets them. */
import assert from "node:assert/strict";
import { TinyFolder, tinyRows } from "../finetune/tiny_run.ts";
import { runTask } from "./start_task.ts";

const texts = tinyRows(3, 8).map(({ sentence }) => sentence);
const model = ["--model", "model", "--threads", "1"];

Deno.test("infer answers arguments and lines of standard input alike, whatever their ends", async () => {
  await using folder = await TinyFolder.create();
  const { path: cwd } = folder;
  await folder.writeModel("model");
  const [asArguments, asLines, withoutEnd, dashed] = await Promise.all([
    runTask("infer", [...model, ...texts], { cwd }),
    runTask("infer", model, { cwd, input: texts.join("\n") + "\n" }),
    runTask("infer", model, { cwd, input: texts.join("\r\n") }),
    runTask("infer", [...model, "--", "--is_it great"], { cwd }),
  ]);
  for (const { code, errors } of [asArguments, asLines, withoutEnd, dashed]) {
    assert.deepEqual([code, errors], [0, []]);
  }
  const lines = asArguments.stdout.trimEnd().split("\n");
  assert.equal(lines.length, texts.length);
  lines.forEach((line, index) => {
    const [label, score, text] = line.split("\t");
    assert.match(label, /^LABEL_[01]$/);
    assert.ok(Number(score) >= 0.5 && Number(score) <= 1);
    assert.equal(text, texts[index]);
  });
  assert.equal(asLines.stdout, asArguments.stdout);
  assert.equal(withoutEnd.stdout, asArguments.stdout);
  assert.match(dashed.stdout, /\t--is_it great\n$/);
});

Deno.test("infer --json has text, label, score and scores, for more lines than a pipe holds", async () => {
  await using folder = await TinyFolder.create();
  const { path: cwd } = folder;
  await folder.writeModel("model", { id2label: { 0: "bad", 1: "good", 2: "neither" } });
  const many = Array.from({ length: 700 }, (_, index) => texts[index % texts.length]);
  const { code, stdout, errors } = await runTask("infer", [...model, "--json", "-"], {
    cwd,
    input: many.join("\n"),
  });
  assert.deepEqual([code, errors], [0, []]);
  assert.ok(stdout.length > 2 ** 16, "more than a pipe holds");
  const answers = JSON.parse(stdout);
  assert.deepEqual(answers.map(({ text }: { text: string }) => text), many);
  for (const answer of answers) {
    assert.deepEqual(Object.keys(answer), ["text", "label", "score", "scores"]);
    const scores = Object.entries(answer.scores as Record<string, number>);
    assert.deepEqual(scores.map(([label]) => label).sort(), ["bad", "good", "neither"]);
    assert.ok(Math.abs(scores.reduce((sum, [, score]) => sum + score, 0) - 1) < 1e-12);
    assert.equal(answer.score, Math.max(...scores.map(([, score]) => score)));
    assert.equal(answer.scores[answer.label], answer.score);
  }
  const toFile = await runTask("infer", [...model, "--json", "answers.json", ...texts], { cwd });
  assert.equal(toFile.code, 0, toFile.errors.join("\n"));
  assert.equal(toFile.stdout.trimEnd().split("\n").length, texts.length);
  assert.equal(JSON.parse(await Deno.readTextFile(folder.at("answers.json"))).length, texts.length);
});

Deno.test("infer and export answer bad input with exit code 2 and one line, and write nothing", async () => {
  await using folder = await TinyFolder.create();
  const { path: cwd } = folder;
  await folder.writeModel("model");
  await folder.writeModel("taken");
  const cases: [string, string[], string | RegExp][] = [
    ["infer", model, "there is no text: wanted one as an argument, or lines on standard input"],
    [
      "infer",
      ["text"],
      "--model is missing and nothing was fine-tuned here yet: run `deno task finetune` first",
    ],
    ["infer", ["--model", "none", "text"], /^There is no model none .*|^Cannot download none/],
    ["infer", ["--model", "./none", "text"], /^There is no folder .*none, and it is no hub id /],
    [
      "infer",
      ["--model", "model", "--threads", "0", "text"],
      "threads is 0: wanted a whole number from 1 to 1024",
    ],
    ["infer", ["--model", "model", "--isa", "mmx", "text"], /instruction set mmx: this host has /],
    ["export", ["--out", "out"], "--model is missing: wanted a folder"],
    ["export", ["--model", "model"], "--out is missing: wanted a folder"],
    [
      "export",
      ["--model", "model", "--out", "taken"],
      /^taken already holds a model .*: pass --overwrite or another/,
    ],
    [
      "export",
      ["--model", "model", "--out", "out", "--format", "gguf"],
      /^--format is gguf: wanted one of sparse, /,
    ],
    [
      "export",
      ["--model", "model", "--out", "out", "--pattern", "4:2"],
      /^Unknown pruning pattern 4:2: wanted unstructured, /,
    ],
    [
      "export",
      ["--model", "model", "--out", "out", "--quantize", "int8"],
      /^--quantize is int8: this version exports/,
    ],
  ];
  // No hub: a name that is no folder must not go to the network of the machine that runs the test.
  const env = { HF_ENDPOINT: "http://127.0.0.1:9", HF_HOME: folder.at("home") };
  const before = folder.snapshot();
  for (let begin = 0; begin < cases.length; begin += 3) {
    await Promise.all(
      cases.slice(begin, begin + 3).map(async ([name, args, message]) => {
        const { code, stdout, errors } = await runTask(name, args, { cwd, env });
        assert.equal(code, 2, `${args.join(" ")}: ${errors.join("\n")}`);
        assert.equal(errors.length, 1, errors.join("\n"));
        assert.equal(stdout, "");
        const [, text] = new RegExp(`^lacuna ${name}: (.*)$`).exec(errors[0])!;
        if (typeof message === "string") assert.equal(text, message);
        else assert.match(text, message);
      }),
    );
  }
  assert.deepEqual(folder.snapshot(), before);
});

Deno.test("export writes each format, and lists the files", async () => {
  await using folder = await TinyFolder.create();
  const { path: cwd } = folder;
  await folder.writeModel("model");
  for (const format of ["sparse", "safetensors", "onnx"]) {
    const args = ["--model", "model", "--out", "out", "--overwrite", "--format", format];
    const { code, stdout, errors } = await runTask("export", [...args, "--json", "result.json"], { cwd });
    assert.deepEqual([code, errors], [0, []]);
    assert.match(
      stdout,
      /^written to out, 0\.0 % zeros in the encoder's matrices:\n {2}model.safetensors {2}/,
    );
    assert.equal(/onnx\/model.onnx/.test(stdout), format !== "safetensors");
    const { dir, files, sparsity } = JSON.parse(await Deno.readTextFile(folder.at("result.json")));
    assert.deepEqual([dir, sparsity], ["out", 0]);
    for (const { name, byteLength } of files) {
      assert.equal((await Deno.stat(folder.at("out", name))).size, byteLength);
    }
  }
});

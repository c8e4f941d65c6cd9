import assert from "node:assert/strict";
import fc from "fast-check";
import { parseBertConfig } from "../models/config.ts";
import { presetConfig, presetNames, presetOf } from "../models/presets.ts";
import { runTask } from "../src/cli/start_task.ts";
import { InputError } from "../src/core/errors.ts";
import { finetuneDefaults } from "../src/finetune/options.ts";
import { tinyConfigJson, TinyFolder } from "../src/finetune/tiny_run.ts";
import { classifier } from "../src/finetune/tasks/classification.ts";
import { optimizerDefaults } from "../src/kernels/optimizer/optimizers.ts";
import { Trainer } from "../src/finetune/trainer.ts";
import { availableMachines, selectMachine } from "../src/machines/mod.ts";
import { InlineExecutor } from "../src/plan/executor.ts";
import { isPrunable } from "../src/pruning/sparsity.ts";
import {
  compareByPrecision,
  compareWith,
  describeOrigin,
  type OtherRow,
  readOtherResults,
} from "./against.ts";
import { operationOfKey } from "./operation_times.ts";
import { percent, significant, textTable } from "../src/report/text_table.ts";
import { randomMask } from "./step_runner.ts";
import { benchTraining, stepOperations } from "./train.ts";
import { formatTraining } from "./train_report.ts";

const config = parseBertConfig(tinyConfigJson, "tiny");

const trainOptions = {
  config,
  model: "tiny",
  batch: 4,
  tokens: 8,
  sparsities: [0, 0.5],
  pattern: "4x1",
  threads: 1,
  seconds: 0.01,
  peakGflops: 10,
} as const;

for (const { isa } of availableMachines()) {
  Deno.test(`benchTraining: a row for each sparsity, with consistent rates and all operations, ${isa}`, async () => {
    const rows = await benchTraining({ ...trainOptions, isa });
    assert.deepEqual(
      rows.map(({ weights, pattern }) => [weights, pattern]),
      [["dense", "dense"], ["sparse", "4x1"]],
    );
    for (const row of rows) {
      const seconds = row.step_ms.p50 / 1000;
      assert.equal(row.tokens_per_second, 32 / seconds);
      assert.equal(row.examples_per_second, 4 / seconds);
      assert.equal(row.share_of_peak, row.gflops / 10);
      assert.equal(row.speedup_vs_dense, rows[0].step_ms.p50 / row.step_ms.p50);
      const names = row.operations.map(({ operation }) => operation);
      assert.equal(new Set(names).size, names.length, "an operation has one row");
      for (const name of ["matmul", "matmul_transposed", "attention_gradient", "adamw"]) {
        assert.ok(names.includes(name), `${name} is among ${names}`);
      }
      const share = row.operations.reduce((sum, each) => sum + each.share, 0);
      assert.ok(Math.abs(share - 1) < 1e-9, `shares add up to ${share}`);
    }
    assert.equal(rows[0].sparsity, 0);
    assert.equal(rows[0].gflops, rows[0].dense_equivalent_gflops);
    assert.ok(rows[1].gflops < rows[1].dense_equivalent_gflops);
  });
}

Deno.test("benchTraining refuses what it cannot measure, in one line", async () => {
  for (const wrong of [{ batch: 0 }, { tokens: 25 }, { threads: 1.5 }, { seconds: 0 }, { sparsities: [1] }]) {
    await assert.rejects(
      benchTraining({ ...trainOptions, ...wrong }),
      (error) => error instanceof InputError && /^--\w+ is [\d.]+: wanted /.test(error.message),
    );
  }
});

Deno.test("randomMask masks that share of the blocks, nested, and the weights with them", async () => {
  const trainer = await Trainer.create({
    model: classifier(config),
    machine: selectMachine(),
    workers: 1,
    createExecutor: ({ machine, threads, arena }) =>
      Promise.resolve(new InlineExecutor(machine, threads, arena)),
    maximumSequences: 1,
    maximumTokens: 8,
    seed: 1,
    optimizer: optimizerDefaults("adamw"),
    maximumNorm: finetuneDefaults.maximumNorm,
  });
  const slots = trainer.layout.slots.filter(({ name }) => isPrunable(name));
  const keeps = (index: number) => (trainer.mask[index >> 5] >>> (index & 31) & 1) === 1;
  for (const pattern of ["unstructured", "4x1"] as const) {
    let kept: boolean[] | undefined;
    for (const sparsity of [0, 0.5, 0.9]) {
      trainer.initialise();
      const { words, sparsity: counted } = randomMask(trainer.layout, pattern, sparsity);
      trainer.mask.set(words);
      trainer.applyMask();
      const now = slots.flatMap(({ offset, length }) => Array.from({ length }, (_, i) => keeps(offset + i)));
      assert.equal(counted, now.filter((keep) => !keep).length / now.length);
      assert.ok(Math.abs(counted - sparsity) < 0.05, `${pattern}: ${counted}, wanted about ${sparsity}`);
      assert.ok(now.every((keep, i) => !keep || (kept?.[i] ?? true)), "zeros stay");
      for (const slot of slots) {
        const columns = slot.shape[1];
        trainer.parameter(slot).forEach((value, i) => {
          const index = slot.offset + i;
          if (!keeps(index)) assert.equal(value, 0);
          const row = Math.floor(i / columns);
          if (pattern === "4x1" && row % 4 > 0) assert.equal(keeps(index), keeps(index - columns));
        });
      }
      kept = now;
    }
  }
  await trainer.dispose();
});

Deno.test("stepOperations counts three products a weight and token, and six in attention", () => {
  // BERT-base: 12 layers of 7,077,888 weights.
  const base = presetConfig("bert-base");
  const encoder = 6 * 12 * 7_077_888;
  const attention = 12 * 12 * 128 ** 2 * 768;
  const head = 6 * (768 * 768 + 768 * 2);
  assert.equal(stepOperations(base, { batch: 1, tokens: 128 }, 1), encoder * 128 + attention + head);
  assert.equal(stepOperations(base, { batch: 3, tokens: 128 }, 0), 3 * (attention + head));
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 64 }), fc.double({ min: 0, max: 1, noNaN: true }), (n, d) => {
      const at = (density: number) => stepOperations(base, { batch: n, tokens: 16 }, density);
      const between = at(0) + d * (at(1) - at(0));
      assert.ok(Math.abs(at(d) - between) <= 1e-9 * between);
    }),
  );
});

Deno.test("operationOfKey names kernels without types, sizes and constants", () => {
  const names = {
    adamw_masked_f32: "adamw_masked",
    attention_2x64_tile64_dropout_training: "attention",
    layer_norm_gradient_f32_tile64x4: "layer_norm_gradient",
    matmul_f32_128x128_bias_tile64_block6x4_4_panel510: "matmul",
    matmul_f32_128x128_transposed_addend_tile64: "matmul_transposed",
    select_columns_gradient_tile64: "select_columns_gradient",
    embedding_f32: "embedding",
  };
  for (const [key, name] of Object.entries(names)) assert.equal(operationOfKey(key), name);
});

Deno.test("presetOf finds the preset of a shape, whatever the vocabulary", () => {
  for (const name of presetNames) {
    assert.equal(presetOf(presetConfig(name, { vocabularySize: 7 })), name);
    assert.equal(presetOf(presetConfig(name, { layers: 5 })), undefined);
  }
});

const other: OtherRow = {
  engine: "pytorch",
  model: "tiny",
  device: "cpu",
  dtype: "fp32",
  attention: "sdpa",
  compile: false,
  batch: 4,
  tokens: 8,
  threads: 1,
  step_ms: { p50: 8 },
  examples_per_second: 500,
};

Deno.test("compareWith takes the fastest row for the same work on a CPU", () => {
  const others: OtherRow[] = [
    other,
    { ...other, compile: true, examples_per_second: 800 },
    { ...other, device: "cuda", examples_per_second: 9000 },
    { ...other, threads: 2, examples_per_second: 1500 },
    { ...other, tokens: undefined, step_ms: undefined, engine: "huggingface-trainer", group_by_length: true },
  ];
  const work = { model: "tiny", batch: 4, tokens: 8, threads: 1, examples_per_second: 1600 };
  assert.deepEqual(compareWith(others, work), {
    engine: "pytorch sdpa compiled",
    examples_per_second: 800,
    speedup: 2,
  });
  assert.equal(
    compareWith(others, { ...work, tokens: undefined })?.engine,
    "huggingface-trainer sdpa grouped",
  );
  assert.equal(compareWith(others, { ...work, batch: 5 }), undefined);
});

Deno.test("compareByPrecision takes the fastest row of each on CUDA for work on a GPU, whatever the threads", () => {
  const cuda: OtherRow = { ...other, device: "cuda", threads: 16 };
  const others: OtherRow[] = [
    other,
    cuda,
    { ...cuda, attention: "eager", examples_per_second: 400 },
    { ...cuda, dtype: "bf16", examples_per_second: 2000 },
    { ...cuda, dtype: "tf32", tokens: 9 },
  ];
  const work = {
    device: "webgpu",
    model: "tiny",
    batch: 4,
    tokens: 8,
    threads: 1,
    examples_per_second: 1000,
  } as const;
  assert.deepEqual(compareByPrecision(others, work), {
    fp32: { engine: "pytorch sdpa", examples_per_second: 500, speedup: 2 },
    bf16: { engine: "pytorch sdpa bf16", examples_per_second: 2000, speedup: 0.5 },
  });
  assert.equal(compareWith(others, work)?.engine, "pytorch sdpa bf16");
  assert.deepEqual(compareByPrecision([other], work), {});
  const whole = { ...work, precision: "fp32" } as const;
  others.push({ ...cuda, dtype: "tf32", examples_per_second: 1250 });
  assert.deepEqual(Object.keys(compareByPrecision(others, whole)), ["fp32", "tf32"]);
  assert.equal(compareWith(others, whole)?.engine, "pytorch sdpa tf32");
  for (const device of ["webgpu", "dawn"] as const) {
    const half = { ...work, device, precision: "fp16" } as const;
    assert.deepEqual(Object.keys(compareByPrecision(others, half)), ["bf16"]);
  }
});

/** What the scripts write beside the rows. */
const origin = {
  machine: { cpu: "A CPU", cores: 2 },
  versions: { torch: "2.15.0" },
  settings: { dropout: 0.1, attention: ["sdpa"] },
};

Deno.test("readOtherResults keeps where rows come from, and names the field that a file lacks", async () => {
  await using folder = await TinyFolder.create();
  const good = await folder.write("good.json", JSON.stringify({ ...origin, rows: [other] }));
  const [result] = await readOtherResults([good]);
  assert.deepEqual(result, { path: good, origin, rows: [other] });
  const line = `against ${good}: torch 2.15.0; dropout 0.1, attention ["sdpa"]`;
  assert.equal(describeOrigin(result, "A CPU"), line);
  assert.equal(describeOrigin(result, "Another"), `${line}; measured on another processor, A CPU`);
  const bad = await folder.write(
    "bad.json",
    JSON.stringify({ ...origin, rows: [{ ...other, threads: "two" }] }),
  );
  await assert.rejects(
    readOtherResults([bad]),
    (error) => error instanceof InputError && /bad\.json .*rows\.0\.threads: [^\n]+$/.test(error.message),
  );
});

Deno.test("textTable sets words to the left and numbers to the right", () => {
  const table = textTable([
    { heading: "name", cell: ({ name }) => name, words: true },
    { heading: "n", cell: ({ n }) => significant(n) },
  ], [{ name: "a", n: 1234.5 }, { name: "longer", n: 0.01234 }]);
  assert.deepEqual(table.split("\n"), [
    "name         n",
    "──────────────",
    "a         1235",
    "longer  0.0123",
  ]);
  assert.deepEqual([0, 0.9, 1].map(percent), ["0 %", "90.0 %", "100 %"]);
});

Deno.test("bench --train measures a model and a file, and sets PyTorch's rows beside its own", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeModel("model");
  // Rows for a folder of no named shape carry its path.
  const against = await folder.write(
    "against.json",
    JSON.stringify({ ...origin, rows: [{ ...other, model }] }),
  );
  const args = ["--train-file", folder.at("train.tsv"), "--model", model, "--batch", "4", "--tokens", "8"];
  args.push("--threads", "1", "--seconds", "0.01", "--sparsity", "0.5");
  const { code, stdout, errors } = await runTask("bench", [
    ...args,
    ...["--against", against, "--json", "-"],
  ], { cwd: folder.path });
  assert.equal(code, 0, errors.join("\n"));
  const result = JSON.parse(stdout);
  assert.deepEqual(result.against, [{ file: against, ...origin }]);
  assert.ok(errors.some((line) => line.includes("torch 2.15.0")), errors.join("\n"));
  assert.deepEqual(result.rows.map(({ weights }: { weights: string }) => weights), ["dense", "sparse"]);
  for (const { examples_per_second, against: { engine, speedup } } of result.rows) {
    assert.equal(engine, "pytorch sdpa");
    assert.equal(speedup, examples_per_second / 500);
  }
  assert.equal(result.file_rows.length, 2);
  for (const row of result.file_rows) {
    assert.equal(row.steps, 96 / 4 - 5 - 1);
    assert.equal(row.examples, 4 * row.steps);
    assert.equal(row.examples_per_second, row.examples / row.seconds);
    assert.ok(row.tokens_per_second > 4 * row.examples_per_second, "[CLS], two words at least, [SEP]");
  }
  const zeros = result.file_rows.map(({ sparsity }: { sparsity: number }) => sparsity);
  assert.ok(zeros[0] === 0 && Math.abs(zeros[1] - 0.5) < 0.01, `${zeros}`);
  const text = formatTraining(result);
  for (const title of ["fine-tuning steps", "one worker", "finetune on the file", "pytorch sdpa"]) {
    assert.ok(text.includes(title), `${title} in:\n${text}`);
  }

  const few = await runTask("bench", [...args, "--max-train-samples", "12"], { cwd: folder.path });
  assert.equal(few.code, 2);
  assert.match(
    few.errors.at(-1)!,
    /^lacuna bench: .*train\.tsv has examples for 3 steps of 4: wanted 7 or more$/,
  );
});

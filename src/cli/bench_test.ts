import assert from "node:assert/strict";
import { benchCommand, checkFlags } from "./bench.ts";

function check(line: string): void {
  checkFlags(benchCommand().parse(line.split(" ").filter((word) => word !== ""), { from: "user" }));
}

Deno.test("bench takes every flag in its mode", () => {
  const sizes = "--tokens 16 --isa wasm --json -";
  const timed = `${sizes} --batch 1 --threads 1 --seconds 1`;
  for (
    const line of [
      "",
      `${timed} --synthetic bert-tiny --sparsity 0.5 --pattern 4x1 --quantize int8 --html r.html --no-tune`,
      `${timed} --model dir --html r.html`,
      `${sizes} --kernels`,
      `${timed} --train --against a.json b.json --sparsity 0.5 --pattern 4x1`,
      `${timed} --train rows.tsv --synthetic bert-tiny --tokenizer dir --max-train-samples 9 --against a.json`,
      `${timed} --train rows.tsv --model dir --sparsity 0.5`,
      "--train --device dawn --precision fp16",
    ]
  ) check(line);
});

Deno.test("bench refuses a flag that would be ignored, in one line that says where it belongs", () => {
  const cases: Readonly<Record<string, string>> = {
    "--against a.json":
      "--against is given without --train and --kernels: wanted it with --train or with --train FILE only",
    "--train --html r.html": "--html is given with --train: wanted it without --train and --kernels only",
    "--train --tokenizer dir": "--tokenizer is given with --train: wanted it with --train FILE only",
    "--train rows.tsv --no-tune":
      "--no-tune is given with --train FILE: wanted it without --train and --kernels only",
    "--train rows.tsv --model dir --tokenizer dir":
      "--tokenizer is given with --model, which has its own: wanted one of the two",
    "--train rows.tsv --precision fp16":
      "--precision is given with --train FILE: wanted it with --train only",
    "--model dir --sparsity 0.5":
      "--sparsity is given with --model, which has its own: wanted one of the two",
    "--max-train-samples 9":
      "--max-train-samples is given without --train and --kernels: wanted it with --train FILE only",
    "--kernels --train": "--train is given with --kernels: wanted it with --train or with --train FILE only",
  };
  for (const [line, message] of Object.entries(cases)) {
    assert.throws(() => check(line), { name: "InputError", message }, line);
  }
  for (const flag of ["--quantize int8", "--html r.html", "--no-tune"]) {
    for (const mode of ["--train", "--train rows.tsv", "--kernels"]) {
      assert.throws(() => check(`${flag} ${mode}`), { name: "InputError" }, `${flag} ${mode}`);
    }
  }
  for (
    const flag of ["--model dir", "--batch 1", "--threads 1", "--seconds 4", "--sparsity 0.5", "--against a"]
  ) {
    assert.throws(() => check(`${flag} --kernels`), { name: "InputError" }, flag);
  }
});

/**
 * `deno task bench`: the sparse model against dense runtimes, in one run, taking turns.
 * @module
 */
import { join } from "node:path";
import { formatKernels } from "../../bench/kernel_report.ts";
import { benchKernels } from "../../bench/kernels.ts";
import { describeMachine } from "../../bench/machine.ts";
import { benchModel, type ModelBenchResult, writeSyntheticModel } from "../../bench/model.ts";
import { formatTable, htmlReport } from "../../bench/report.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import { chooseThreads } from "../core/cores.ts";
import { InputError } from "../core/errors.ts";
import { ensureFolder, writeFileAtomic } from "../core/files.ts";
import { parsePattern, patternForms } from "../pruning/pattern.ts";
import { type BenchTrainFlags, runBenchTrain } from "./bench_train.ts";
import {
  type Command,
  jsonOnStandardOutput,
  makeCommand,
  noteFallback,
  parseNumber,
  runCommand,
  writeJson,
} from "./command.ts";
import { lastModel } from "./last_model.ts";

/** The command with all its flags. */
export function benchCommand(): Command {
  return makeCommand(
    "bench",
    "Time a sparse model against ONNX Runtime and transformers.js, same weights, same threads, taking turns.\n" +
      "Without --model and --synthetic: the last fine-tuned model if there is one, then a synthetic BERT-base.",
  )
    .option("--model <dir>", "model folder")
    .option(
      "--synthetic <preset>",
      "random weights of a shape: bert-tiny, minilm-l6, bert-base, bert-large, …",
    )
    .option("--sparsity <x>", "zeros of the synthetic model, in [0, 1) (default 0.9)", parseNumber)
    .option(
      "--pattern <name>",
      `pattern of the synthetic model: ${patternForms}`,
      "unstructured",
    )
    .option("--quantize <type>", "int8: not available in this version")
    .option("--tokens <n>", "tokens in a text (default 128, or what the model can take)", parseNumber)
    .option("--batch <n>", "texts in a call (default 1)", parseNumber)
    .option("--threads <n>", "threads of every engine (default: one per usable core)", parseNumber)
    .option("--seconds <n>", "measured seconds per engine", parseNumber, 4)
    .option("--isa <name>", "instruction set of lacuna's kernels (default: the fastest there is)")
    .option("--no-tune", "choose kernels by rule instead of measuring them at the first load")
    .option(
      "--kernels",
      "time the kernels one by one instead; of the other flags it takes --tokens, --isa and --json",
    )
    .option(
      "--train [file]",
      "time fine-tuning steps instead, dense and sparse; with a training file, also finetune on that file",
    )
    .option(
      "--device <name>",
      "with --train: webgpu (Deno's) or dawn (Chrome's) times steps on a GPU too, beside those on the cpu",
      "cpu",
    )
    .option("--precision <name>", "of steps on a GPU: fp32 or fp16 (default: all that it has)")
    .option(
      "--tokenizer <dir>",
      "tokenizer for --train FILE with --synthetic (default: made from the file)",
    )
    .option("--max-train-samples <n>", "with --train FILE: use the first rows only", parseNumber, 3200)
    .option("--against <files...>", "with --train: results of tools/compare to set beside ours", [])
    .option("--html <file>", "where the report goes", "runs/bench.html");
}

/** Flags of everything but `--kernels`. */
const common: readonly string[] = [
  "--model",
  "--synthetic",
  "--sparsity",
  "--pattern",
  "--tokens",
  "--batch",
  "--threads",
  "--seconds",
  "--isa",
  "--json",
];

const training = [...common, "--train", "--against"];

/** Something the command can do: under which condition, and with which flags. */
interface Mode {
  readonly condition: string;
  readonly flags: readonly string[];
}

const modes: Readonly<Record<"models" | "steps" | "file" | "kernels", Mode>> = {
  models: {
    condition: "without --train and --kernels",
    flags: [...common, "--quantize", "--no-tune", "--html"],
  },
  steps: { condition: "with --train", flags: [...training, "--device", "--precision"] },
  file: { condition: "with --train FILE", flags: [...training, "--tokenizer", "--max-train-samples"] },
  kernels: { condition: "with --kernels", flags: ["--kernels", "--tokens", "--isa", "--json"] },
};

/** Refuses a flag that would be ignored: InputError. */
export function checkFlags(command: Command): void {
  const { kernels, train, model } = command.opts();
  const mode =
    modes[kernels ? "kernels" : train === undefined ? "models" : train === true ? "steps" : "file"];
  // A model has these already.
  const needless = model === undefined
    ? []
    : train === undefined
    ? ["--sparsity", "--pattern"]
    : ["--tokenizer"];
  for (const option of command.options) {
    const flag = option.long!;
    if (command.getOptionValueSource(option.attributeName()) !== "cli") continue;
    if (!mode.flags.includes(flag)) {
      const wanted = Object.values(modes).filter(({ flags }) => flags.includes(flag));
      throw new InputError(
        `${flag} is given ${mode.condition}: wanted it ${
          wanted.map(({ condition }) => condition).join(" or ")
        } only`,
      );
    }
    if (needless.includes(flag)) {
      throw new InputError(`${flag} is given with --model, which has its own: wanted one of the two`);
    }
  }
}

async function run(command: Command): Promise<void> {
  const flags = command.opts();
  checkFlags(command);
  noteFallback(flags.isa);
  if (flags.kernels) return await runKernels(flags.isa, flags.tokens, flags.json);
  if (flags.train !== undefined) return await runBenchTrain(command.opts<BenchTrainFlags>());
  const { sparsity = 0.9, batch = 1 } = flags;
  if (flags.quantize !== undefined) {
    throw new InputError(`--quantize is ${flags.quantize}: this version runs f32 models only`);
  }
  if (flags.model !== undefined && flags.synthetic !== undefined) {
    throw new InputError("--model and --synthetic exclude each other: wanted one of them");
  }
  if (!(sparsity >= 0 && sparsity < 1)) {
    throw new InputError(`--sparsity is ${sparsity}: wanted a number in [0, 1)`);
  }
  const pattern = parsePattern(flags.pattern);
  const machine = await describeMachine(flags.isa);
  const threads = chooseThreads(flags.threads);
  const note = (text: string) => console.error(text);
  let activity = "";
  const onProgress = (text: string, share?: number) => {
    if (text !== activity) note(`  ${text}`);
    activity = text;
    if (share === 1) activity = "";
  };
  const bench = (folder: string, title: string, tokens: number) =>
    benchModel({
      folder,
      title,
      tokens,
      batch,
      threads: threads.count,
      seconds: flags.seconds,
      isa: flags.isa,
      noTune: !flags.tune,
      machine,
      onProgress,
    });

  note(`${machine.isa}, ${threads.count} threads (${threads.reason})`);
  const results: ModelBenchResult[] = [];
  const named = flags.model ?? (flags.synthetic === undefined ? await lastModel() : undefined);
  if (named !== undefined) {
    note(`model ${named}`);
    results.push(await bench(named, named, flags.tokens ?? await usualTokens(named)));
  }
  if (flags.model === undefined) {
    const preset = flags.synthetic ?? "bert-base";
    const folder = await Deno.makeTempDir({ prefix: "lacuna-synthetic-" });
    try {
      note(`synthetic ${preset}, ${pattern}, ${sparsity * 100} % zeros`);
      await writeSyntheticModel({ preset, sparsity, pattern, folder });
      results.push(await bench(folder, `synthetic ${preset}`, flags.tokens ?? 128));
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  }

  for (const { result, layerSparsity } of results) {
    if (!jsonOnStandardOutput(flags.json)) console.log(`\n${formatTable(result)}`);
    const isLast = result === results.at(-1)!.result;
    const path = isLast ? flags.html : flags.html.replace(/(\.html?)?$/, "-model$1");
    await ensureFolder(join(path, ".."));
    await writeFileAtomic(path, await htmlReport(result, { layerSparsity }));
    note(`report: ${path}`);
  }
  // One result in the shape of the contract; with two models the rows say which they belong to.
  const [first] = results;
  await writeJson(flags.json, {
    ...first.result,
    rows: results.flatMap(({ result }) => result.rows.map((row) => ({ model: result.config.model, ...row }))),
  });
}

/** `--kernels`: lengths of whole tiles, which kernels are made for. */
async function runKernels(isa?: string, tokens?: number, json?: string): Promise<void> {
  if (tokens !== undefined && !(tokens >= 16 && tokens <= 4096 && Number.isInteger(Math.log2(tokens)))) {
    throw new InputError(`--tokens is ${tokens}: --kernels wants a power of two from 16 to 4096`);
  }
  const result = await benchKernels({
    isa,
    tokens: tokens === undefined ? undefined : [tokens],
    onProgress: (text) => console.error(`  ${text}`),
  });
  if (!jsonOnStandardOutput(json)) console.log(`\n${formatKernels(result)}`);
  await writeJson(json, result);
}

/** 128 tokens, or all the model can take where that is less. */
async function usualTokens(folder: string): Promise<number> {
  const { config } = await openModel(folder);
  return Math.min(128, config.maximumPositions);
}

if (import.meta.main) await runCommand(benchCommand(), run);

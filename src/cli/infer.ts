/**
 * `deno task infer`: answers for the texts given, or for the lines of standard input.
 * @module
 */
import { pipeline } from "../../mod.ts";
import { InputError } from "../core/errors.ts";
import {
  type Command,
  jsonOnStandardOutput,
  makeCommand,
  noteFallback,
  parseNumber,
  runCommand,
  writeJson,
} from "./command.ts";
import { chosenModel } from "./last_model.ts";

/** Texts answered together, so that output begins before a long input ends. */
const textsPerCall = 64;

/** The command with all its flags. */
export function inferCommand(): Command {
  return makeCommand("infer", "Classify texts, or the lines of standard input.")
    .argument("[text...]", "texts to classify; none: read lines from standard input")
    .option("--model <dir|hub id>", "model folder (default: the last one fine-tuned here)")
    .option("--threads <n>", "worker threads (default: one per usable core)", parseNumber)
    .option("--isa <name>", "instruction set (default: the fastest there is)")
    .option("--no-tune", "choose kernels by rule instead of measuring them at the first load");
}

interface Answer {
  readonly text: string;
  readonly label: string;
  readonly score: number;
  readonly scores: Readonly<Record<string, number>>;
}

async function run(command: Command): Promise<void> {
  const flags = command.opts();
  noteFallback(flags.isa);
  const classify = await pipeline("text-classification", await chosenModel(flags.model), {
    threads: flags.threads,
    isa: flags.isa,
    tune: flags.tune,
  });
  try {
    const classes = classify.session.config.labels.length;
    const answers: Answer[] = [];
    const show = !jsonOnStandardOutput(flags.json);
    for await (const texts of inGroups(command.args.length > 0 ? command.args : standardInputLines())) {
      const scored = await classify(texts, { top_k: classes });
      texts.forEach((text, index) => {
        const [best] = scored[index];
        const scores = Object.fromEntries(scored[index].map(({ label, score }) => [label, score]));
        answers.push({ text, label: best.label, score: best.score, scores });
        if (show) console.log(`${best.label}\t${best.score.toFixed(4)}\t${text}`);
      });
    }
    if (answers.length === 0) {
      throw new InputError("there is no text: wanted one as an argument, or lines on standard input");
    }
    await writeJson(flags.json, answers);
  } finally {
    await classify.dispose();
  }
}

async function* standardInputLines(): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split(/\r?\n/);
    rest = lines.pop()!;
    yield* lines;
  }
  if (rest !== "") yield rest;
}

async function* inGroups(texts: Iterable<string> | AsyncIterable<string>): AsyncGenerator<string[]> {
  let group: string[] = [];
  for await (const text of texts) {
    group.push(text);
    if (group.length === textsPerCall) {
      yield group;
      group = [];
    }
  }
  if (group.length > 0) yield group;
}

if (import.meta.main) await runCommand(inferCommand(), run);

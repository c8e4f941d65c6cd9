/**
 * Tiny data, models and settings for tests of whole runs: made on the spot, trained in a fraction of a second.
 *
 *     await using folder = await TinyFolder.create();
 *     await finetune(folder.settings({ sparsity: 0.5 }));
 * @module
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join, relative } from "node:path";
import { finetune, type FinetuneResult, InputError, Interrupted, UnsupportedError } from "../../mod.ts";
import { type BertConfig, bertConfigJson, bertTensorShapes, parseBertConfig } from "../../models/config.ts";
import { maskedLmConfigJson, maskedLmTensorShapes } from "../../models/masked_lm_config.ts";
import { saveModel } from "../checkpoint/model_folder.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import { buildVocabulary } from "../data/vocabulary.ts";
import { wordPieceFiles } from "../data/wordpiece.ts";
import { finetuneDefaults, type FinetuneSettings } from "./options.ts";

/** `config.json` of the encoder: two layers of 16 hidden units, wide starting weights so that it learns in few steps. */
export const tinyConfigJson: Readonly<Record<string, unknown>> = {
  model_type: "bert",
  vocab_size: 40,
  hidden_size: 16,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  intermediate_size: 32,
  max_position_embeddings: 24,
  initializer_range: 0.2,
};

/** Words that decide the label. */
const words = { negative: ["awful", "boring", "weak"], positive: ["great", "lovely", "fine"] } as const;
const filler = ["the", "film", "plot", "was", "and", "songs", "its", "cast"];

/** Labelled sentences: one telling word among words that say nothing. Labels alternate. */
export function tinyRows(count: number, seed: number): { sentence: string; label: keyof typeof words }[] {
  const stream = new RandomStream(randomKey(seed, "tiny rows"));
  return Array.from({ length: count }, (_, index) => {
    const label = index % 2 ? "positive" : "negative";
    const sentence = Array.from({ length: 2 + stream.below(6) }, () => filler[stream.below(filler.length)]);
    sentence[stream.below(sentence.length)] = words[label][stream.below(3)];
    return { sentence: sentence.join(" "), label };
  });
}

/** A temporary folder with a training file, an evaluation file and a config. */
export class TinyFolder implements AsyncDisposable {
  private constructor(readonly path: string) {}

  /** Makes the folder and its files: `train.tsv`, `eval.tsv`, `config.json`. */
  static async create(): Promise<TinyFolder> {
    const folder = new TinyFolder(await Deno.makeTempDir({ prefix: "lacuna-" }));
    await folder.write("train.tsv", tsv(tinyRows(96, 1)));
    await folder.write("eval.tsv", tsv(tinyRows(48, 2)));
    await folder.write("config.json", JSON.stringify(tinyConfigJson));
    return folder;
  }

  /** The path of a file or folder inside. */
  at(...names: string[]): string {
    return join(this.path, ...names);
  }

  /** Writes a file inside and gives its path. */
  async write(name: string, content: string | Uint8Array): Promise<string> {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    await Deno.writeFile(this.at(name), bytes);
    return this.at(name);
  }

  /** Settings of a run of 24 steps on the files, into `out`. */
  settings(changes: Partial<FinetuneSettings> = {}): FinetuneSettings {
    const start = changes.model === undefined ? { init: this.at("config.json") } : {};
    return {
      ...finetuneDefaults,
      ...start,
      train: this.at("train.tsv"),
      evaluation: this.at("eval.tsv"),
      maximumLength: 24,
      epochs: 4,
      batchSize: 16,
      learningRate: 1e-2,
      // Whatever this host has: what is compared bit by bit is the CPU's.
      device: "cpu",
      threads: 2,
      out: this.at("out"),
      ...changes,
    };
  }

  /** Writes a model with random weights and a fitting tokenizer; `json` changes its config. Gives the folder. */
  writeModel(name: string, json: Readonly<Record<string, unknown>> = {}): Promise<string> {
    return this.#writeModel(name, json, bertTensorShapes, bertConfigJson);
  }

  /** The same with the head of a masked language model. */
  writeMaskedLm(name: string): Promise<string> {
    return this.#writeModel(name, {}, maskedLmTensorShapes, maskedLmConfigJson);
  }

  async #writeModel(
    name: string,
    json: Readonly<Record<string, unknown>>,
    shapesOf: (config: BertConfig) => ReadonlyMap<string, readonly number[]>,
    configJsonOf: (config: BertConfig) => Record<string, unknown>,
  ): Promise<string> {
    const vocabulary = buildVocabulary(tinyRows(96, 1).map(({ sentence }) => sentence));
    const config = parseBertConfig({ ...tinyConfigJson, vocab_size: vocabulary.length, ...json }, name);
    const tensors = Array.from(shapesOf(config), ([tensor, shape]) => {
      const stream = new RandomStream(randomKey(5, tensor));
      const data = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => 0.3 * stream.normal());
      if (tensor.endsWith("LayerNorm.weight")) data.fill(1);
      return { name: tensor, shape, data };
    });
    const tokenizerFiles = wordPieceFiles(vocabulary);
    await saveModel(this.at(name), {
      configJson: configJsonOf(config),
      tensors,
      tokenizerFiles,
      format: "dense",
    });
    return this.at(name);
  }

  /** Hashes of all files below a path, by name: two equal snapshots mean not a byte has changed. */
  snapshot(path: string = this.path): ReadonlyMap<string, string> {
    const hashes = new Map<string, string>();
    const visit = (folder: string) => {
      for (const { name, isDirectory } of Deno.readDirSync(folder)) {
        const child = join(folder, name);
        if (isDirectory) visit(child);
        const content = isDirectory ? "folder" : Deno.readFileSync(child);
        hashes.set(relative(path, child), createHash("sha256").update(content).digest("hex"));
      }
    };
    visit(path);
    return new Map([...hashes].sort(([a], [b]) => a < b ? -1 : 1));
  }

  /**
   * The same of all that a run is for: without its training state and its report, and with the metrics without their
   * seconds, which no two runs share.
   */
  resultOf(out: string): ReadonlyMap<string, string> {
    const timeless = [...this.snapshot(out)].filter(([name]) =>
      !name.startsWith("training") && name !== "report.html"
    );
    return new Map(timeless).set("metrics.jsonl", JSON.stringify(metricsOf(out)));
  }

  /** Removes it all. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** The lines of a run's `metrics.jsonl` without their seconds; none where there is no such file. */
export function metricsOf(out: string): Record<string, unknown>[] {
  let text: string;
  try {
    text = Deno.readTextFileSync(join(out, "metrics.jsonl"));
  } catch {
    return [];
  }
  return text.split("\n").slice(0, -1).map((line) => {
    const { seconds: _, ...values } = JSON.parse(line);
    return values;
  });
}

/** Runs until `step` is done, then interrupts. */
export async function interruptAt(settings: FinetuneSettings, step: number): Promise<void> {
  const controller = new AbortController();
  await assert.rejects(
    finetune(settings, {
      signal: controller.signal,
      listener: { step: ({ completedSteps }) => completedSteps >= step && controller.abort() },
    }),
    (error) => error instanceof Interrupted && error.message.startsWith(`interrupted at step ${step} of `),
  );
}

/**
 * Runs at one go and again with a stop after `step`: both must come to the same bytes. Gives what the first came to, in the
 * folder of the settings.
 */
export async function resumesAt(
  folder: TinyFolder,
  settings: FinetuneSettings,
  step: number,
): Promise<FinetuneResult> {
  const result = await finetune(settings);
  const stopped = { ...settings, out: `${settings.out}-stopped` };
  await interruptAt(stopped, step);
  const resumed = await finetune({ ...stopped, resume: true });
  assert.deepEqual(folder.resultOf(resumed.out), folder.resultOf(result.out));
  assert.equal(resumed.steps, result.steps);
  assert.deepEqual(resumed.evaluation, result.evaluation);
  return result;
}

/** Settings to change, also to what they must not be. */
export type Changes = { readonly [name in keyof FinetuneSettings]?: unknown };

/** Runs with changed settings; the run must refuse with exactly one line, say nothing else, and leave no trace. */
export async function refuses(
  folder: TinyFolder,
  changes: Changes,
  message: string | RegExp,
): Promise<void> {
  const before = folder.snapshot();
  const said: string[] = [];
  await assert.rejects(
    finetune(folder.settings(changes as Partial<FinetuneSettings>), {
      listener: { message: (text) => said.push(text), step: () => said.push("a step") },
    }),
    (error) => {
      assert.ok(error instanceof InputError || error instanceof UnsupportedError, `${error}`);
      const plain = error.message.replaceAll(folder.path, "");
      if (typeof message === "string") assert.equal(plain, message);
      else assert.match(plain, message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    },
  );
  assert.deepEqual(said, [], "nothing is said before the input is known to be good");
  assert.deepEqual(folder.snapshot(), before, "not a byte has changed");
}

function tsv(rows: readonly { sentence: string; label: string }[]): string {
  return ["sentence\tlabel", ...rows.map(({ sentence, label }) => `${sentence}\t${label}`)].join("\n") + "\n";
}

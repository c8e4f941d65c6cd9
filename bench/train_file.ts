/**
 * Times `finetune` on a training file, from outside, as a user runs it: reading batches, packing, steps, masks.
 *
 * Texts are as long as they are, so this is where packing shows: the Hugging Face trainer
 * (`tools/compare/hf_trainer.py`) pads every batch to its longest text.
 * @module
 */
import { join } from "node:path";
import { finetune, finetuneDefaults, InputError } from "../mod.ts";
import type { Pattern } from "../src/pruning/pattern.ts";

/** What to measure. */
export interface TrainFileOptions {
  /** Training file, as `finetune --train` takes it. */
  readonly file: string;
  /** Model folder, or `preset`. */
  readonly folder?: string;
  /** Random weights of a named shape. */
  readonly preset?: string;
  /** Tokenizer folder for `preset`; absent: a vocabulary made from the file, whose texts are then of other lengths. */
  readonly tokenizer?: string;
  /** What the rows call the model. */
  readonly model: string;
  readonly sparsities: readonly number[];
  readonly pattern: Pattern;
  /** Sequences in a step. */
  readonly batch: number;
  readonly threads: number;
  readonly isa?: string;
  /** Longest sequence in tokens; longer texts are truncated. */
  readonly maximumLength: number;
  /** Rows of the file to train on, from its beginning. */
  readonly maximumSamples: number;
  readonly onProgress?: (activity: string, share?: number) => void;
}

/** One run. Keys are part of the command's contract. */
export interface TrainFileRow {
  /** The product. */
  readonly engine: "lacuna";
  readonly model: string;
  /** `sparse` where weights are pruned, from the first step on. */
  readonly weights: "dense" | "sparse";
  /** Pruning pattern, `dense` for none. */
  readonly pattern: string;
  /** Share of the prunable weights that are zero. */
  readonly sparsity: number;
  /** Sequences in a step. */
  readonly batch: number;
  readonly threads: number;
  /** Timed steps. */
  readonly steps: number;
  /** Sequences in them. */
  readonly examples: number;
  /**
   * From the end of the untimed steps to the end of the last timed one, everything between included. What the word
   * table's rows missed is replayed when they are read; the rest when the run ends, which is not in it.
   */
  readonly seconds: number;
  readonly examples_per_second: number;
  /** Examples a second times the mean length of all texts trained on. Padding counts on neither side. */
  readonly tokens_per_second: number;
}

/** Steps that are not timed: the first of each batch size makes its plan. `hf_trainer.py` leaves out as many. */
const untimedSteps = 5;

/** Runs one epoch at each sparsity. Throws `InputError` for a file or model that cannot be used. */
export async function benchTrainFile(options: TrainFileOptions): Promise<TrainFileRow[]> {
  const rows: TrainFileRow[] = [];
  for (const sparsity of options.sparsities) rows.push(await trainOnce(options, sparsity));
  return rows;
}

async function trainOnce(options: TrainFileOptions, sparsity: number): Promise<TrainFileRow> {
  const { file, folder, preset, tokenizer, pattern, batch, threads, isa, onProgress } = options;
  const out = await Deno.makeTempDir({ prefix: "lacuna-bench-" });
  // The clock stops before the last step, whose batch may be smaller, and after which models are written.
  let [startMs, endMs, timedSteps] = [NaN, NaN, 0];
  try {
    const result = await finetune({
      ...finetuneDefaults,
      ...(folder === undefined ? { init: preset, tokenizer } : { model: folder }),
      train: file,
      maximumTrainSamples: options.maximumSamples,
      maximumLength: options.maximumLength,
      epochs: 1,
      batchSize: batch,
      threads,
      isa,
      sparsity,
      pattern,
      // To the final sparsity before the first step.
      pruneBegin: 0,
      pruneEnd: 0,
      out: join(out, "run"),
    }, {
      listener: {
        step({ completedSteps, totalSteps }) {
          onProgress?.("training on the file", completedSteps / totalSteps);
          if (completedSteps === untimedSteps) startMs = performance.now();
          else if (completedSteps > untimedSteps && completedSteps < totalSteps) {
            endMs = performance.now();
            timedSteps = completedSteps - untimedSteps;
          }
        },
      },
    });
    if (timedSteps === 0) {
      throw new InputError(
        `${file} has examples for ${result.steps} steps of ${batch}: wanted ${untimedSteps + 2} or more`,
      );
    }
    const seconds = (endMs - startMs) / 1000;
    const examples = timedSteps * batch;
    const tokensPerExample = result.tokensPerSecond * result.seconds / result.examples;
    return {
      engine: "lacuna",
      model: options.model,
      weights: sparsity > 0 ? "sparse" : "dense",
      pattern: sparsity > 0 ? pattern : "dense",
      sparsity: result.sparsity.overall,
      batch,
      threads,
      steps: timedSteps,
      examples,
      seconds,
      examples_per_second: examples / seconds,
      tokens_per_second: tokensPerExample * examples / seconds,
    };
  } finally {
    await Deno.remove(out, { recursive: true });
  }
}

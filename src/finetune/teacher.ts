/**
 * A teacher's answers to the training examples: what a student's are compared with in distillation.
 *
 * A teacher does not change, so it answers each example once, and its logits are kept: for 67,349 texts of two classes
 * half a megabyte. It is a finished model (`teacher_model.ts`), or the run's own model just before it is pruned.
 * @module
 */
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { bytesOf, openSafetensors, safetensorsContent } from "../checkpoint/safetensors.ts";
import { InputError, Interrupted } from "../core/errors.ts";
import { ensureFolder, exists, writeFileAtomic } from "../core/files.ts";
import { type BatchLimit, evaluationBatches } from "../data/batches.ts";
import type { ExampleSet } from "../data/example_set.ts";
import { tiledIndex } from "../graph/layout.ts";
import type { Trainer } from "./trainer.ts";

/** Logits of a teacher, one row for each training example. */
export class TeacherLogits {
  /** `digest` says whose they are. */
  constructor(
    /** [examples, outputs] */
    readonly values: Float32Array,
    /** Classes, or numbers that a regression gives. */
    readonly outputs: number,
    readonly digest: string,
  ) {}

  /** Training examples. */
  get examples(): number {
    return this.values.length / this.outputs;
  }

  /**
   * Writes the logits of a batch's examples, by their numbers in the training set, into a graph's input: a tiled matrix
   * [outputs, columns] of that tile. Example i of the batch is column i; columns beyond the batch get 0.
   */
  write(indices: ArrayLike<number>, view: Float32Array, tile: number): void {
    const { values, outputs } = this;
    if (indices.length * outputs > view.length || view.length % (outputs * tile) !== 0) {
      throw new RangeError(
        `Cannot write ${indices.length} columns of ${outputs} logits into ${view.length} numbers in tiles of ${tile}`,
      );
    }
    for (let place = 0; place < indices.length; place++) {
      if (indices[place] >= 0 && indices[place] < this.examples) continue;
      throw new RangeError(
        `Cannot write the logits of example ${indices[place]}: there are ${this.examples} examples`,
      );
    }
    view.fill(0);
    for (let column = 0; column < indices.length; column++) {
      const begin = indices[column] * outputs;
      for (let row = 0; row < outputs; row++) {
        view[tiledIndex(row, column, outputs, tile)] = values[begin + row];
      }
    }
  }
}

/** Who hears of a teacher's answering, and who may end it. */
export interface TeacherListener {
  /** Now and then: examples that are answered, of all. */
  readonly progress?: (examples: number, totalExamples: number) => void;
  /** Aborting ends the answering with `Interrupted`. */
  readonly signal?: AbortSignal;
}

/** Asks in batches, shortest examples first. `answer` gives the logits of a batch's examples, in order. */
export async function askAll(
  lengths: ArrayLike<number>,
  outputs: number,
  limit: BatchLimit,
  answer: (indices: Int32Array) => Promise<readonly ArrayLike<number>[]>,
  { progress, signal }: TeacherListener,
): Promise<Float32Array> {
  const values = new Float32Array(lengths.length * outputs);
  let done = 0;
  for (const indices of evaluationBatches(lengths, limit)) {
    if (signal?.aborted) {
      throw new Interrupted(
        `interrupted while the teacher answered, at example ${done} of ${lengths.length}`,
      );
    }
    const answers = await answer(indices);
    indices.forEach((index, place) => values.set(answers[place], index * outputs));
    done += indices.length;
    progress?.(done, lengths.length);
  }
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) {
    const example = Math.floor(bad / outputs);
    throw new InputError(
      `the teacher's answer to training example ${example} is ${values[bad]}: wanted a finite number`,
    );
  }
  return values;
}

/**
 * The answers of a model in training as it is now, from the result of that name, [outputs, sequences]. Changes no
 * number of the trainer.
 */
export async function askTrainer<Example>(
  trainer: Trainer<Example>,
  set: ExampleSet<Example>,
  limit: BatchLimit,
  listener: TeacherListener = {},
  name = "logits",
): Promise<TeacherLogits> {
  const ask = async (indices: Int32Array) => {
    const output = (await trainer.evaluate(Array.from(indices, set.at))).outputs.get(name);
    if (!output || output.stride < indices.length) {
      throw new TypeError(`Cannot keep a teacher's ${name}: wanted a result with a column for each example`);
    }
    const { values, rows, stride } = output;
    return Array.from(
      indices,
      (_, column) => Float32Array.from({ length: rows }, (_, row) => values[row * stride + column]),
    );
  };
  // The number of outputs is the model's to say: one example tells it.
  const [{ length: outputs }] = await ask(Int32Array.of(0));
  const values = await askAll(set.lengths, outputs, limit, ask, listener);
  const digest = createHash("sha256").update(bytesOf(values)).digest("hex").slice(0, 12);
  return new TeacherLogits(values, outputs, digest);
}

const fileName = join("training", "teacher.safetensors");

/** Keeps the answers with the run's state, so that a resumed run need not ask again, and gets the same. */
export async function saveTeacher(
  out: string,
  { values, outputs, examples, digest }: TeacherLogits,
): Promise<void> {
  const path = join(out, fileName);
  await ensureFolder(dirname(path));
  const logits = {
    name: "logits",
    dtype: "F32" as const,
    shape: [examples, outputs],
    data: () => bytesOf(values),
  };
  await writeFileAtomic(path, safetensorsContent([logits], { digest }));
}

/**
 * The answers that a run has kept; undefined when it has none, or, with a digest, those of another teacher. Throws
 * `InputError` when they are not for as many examples.
 */
export async function loadTeacher(
  out: string,
  { examples, digest }: { readonly examples: number; readonly digest?: string },
): Promise<TeacherLogits | undefined> {
  const path = join(out, fileName);
  if (!await exists(path)) return undefined;
  const file = await openSafetensors(path);
  const found = file.metadata.digest;
  if (digest !== undefined && found !== digest) return undefined;
  const { shape } = file.info("logits");
  if (shape.length !== 2 || shape[0] !== examples || shape[1] === 0 || found === undefined) {
    throw new InputError(
      `${path}: logits have the shape [${shape}], wanted [${examples}, outputs] and a digest`,
    );
  }
  return new TeacherLogits(await file.float32("logits"), shape[1], found);
}

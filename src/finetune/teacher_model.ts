/**
 * A finished model as a teacher: it answers every training example before the first step.
 *
 * It gets the student's tokens, so both must mean the same by them.
 * @module
 */
import { createHash } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { bytesOf } from "../checkpoint/safetensors.ts";
import { type Model, openModel } from "../checkpoint/model_folder.ts";
import { InputError } from "../core/errors.ts";
import type { EncodedExample } from "../data/batches.ts";
import type { ExampleSet } from "../data/example_set.ts";
import { loadTokenizer } from "../data/tokenizer.ts";
import { Session } from "../infer/session.ts";
import type { Machine } from "../machines/machine.ts";
import type { ExecutorFactory } from "../plan/executor.ts";
import { askAll, type TeacherListener, TeacherLogits } from "./teacher.ts";

/** What a teacher must fit. */
export interface Student {
  /** Names of its outputs, in order. */
  readonly labels: readonly string[];
  /** Files of its tokenizer, by name. */
  readonly tokenizerFiles: ReadonlyMap<string, Uint8Array>;
  /** Tokens of its longest training example. */
  readonly longestExample: number;
}

/** A model that can teach the student. */
export interface TeacherModel {
  readonly model: Model;
  /** For each of the student's outputs the number of the teacher's. */
  readonly outputs: readonly number[];
  /** Of weights and labels: the same for the same teacher in any file format. */
  readonly digest: string;
}

/** Opens a model folder, or a model of the hub. Throws `InputError` when it cannot teach the student. */
export async function openTeacher(folder: string, student: Student): Promise<TeacherModel> {
  const model = await openModel(folder).catch((error) => {
    throw error instanceof InputError ? new InputError(`the teacher: ${error.message}`) : error;
  });
  const { config } = model;
  if (model.missing.length > 0) {
    throw new InputError(`teacher ${folder} lacks ${model.missing.join(", ")}: wanted a fine-tuned model`);
  }
  const outputs = matchLabels(folder, config.labels, student.labels);
  if (config.maximumPositions < student.longestExample) {
    throw new InputError(
      `teacher ${folder} has ${config.maximumPositions} positions: wanted at least ${student.longestExample}, ` +
        `the tokens of the longest training example`,
    );
  }
  if (!isDeepStrictEqual(rulesOf(model.tokenizerFiles), rulesOf(student.tokenizerFiles))) {
    throw new InputError(
      `the tokenizer of teacher ${folder} is not the student's: wanted the same tokenizer.json`,
    );
  }
  return { model, outputs, digest: await digestOf(model, outputs) };
}

/** How to ask a teacher. */
export interface TeacherRequest extends TeacherListener {
  readonly examples: ExampleSet<EncodedExample>;
  readonly machine: Machine;
  readonly threads: number;
  readonly createExecutor: ExecutorFactory;
}

/** Examples that a teacher is given at a time: seconds of work for a large model, so that an interrupt is heard. */
const examplesAtATime = 64;

/** The answers to all examples. The teacher's memory is free again afterwards. */
export async function askModel(
  { model, outputs, digest }: TeacherModel,
  { examples, machine, threads, createExecutor, ...listener }: TeacherRequest,
): Promise<TeacherLogits> {
  const session = await Session.open(model, { machine, threads, createExecutor, mode: "throughput" });
  try {
    const limit = { sequences: examplesAtATime * threads, tokens: Infinity };
    const answer = async (indices: Int32Array) => {
      const logits = await session.logits(Array.from(indices, examples.at));
      return logits.map((row) => outputs.map((output) => row[output]));
    };
    const values = await askAll(examples.lengths, outputs.length, limit, answer, listener);
    return new TeacherLogits(values, outputs.length, digest);
  } finally {
    await session.dispose();
  }
}

/** The same names in any order; a single output needs no name. */
function matchLabels(folder: string, teacher: readonly string[], student: readonly string[]): number[] {
  if (teacher.length === 1 && student.length === 1) return [0];
  const order = student.map((label) => teacher.indexOf(label));
  if (teacher.length === student.length && !order.includes(-1)) return order;
  throw new InputError(
    `teacher ${folder} has the labels ${teacher.join(", ")}: wanted those of the student, ${
      student.join(", ")
    }`,
  );
}

/** What decides the ids that a tokenizer gives: all of tokenizer.json but settings that are not heeded here. */
function rulesOf(files: ReadonlyMap<string, Uint8Array>): Record<string, unknown> {
  const json = JSON.parse(new TextDecoder().decode(loadTokenizer(files).files.get("tokenizer.json")));
  const { truncation: _truncation, padding: _padding, version: _version, ...rules } = json;
  return rules;
}

async function digestOf({ config, tensors, unused }: Model, outputs: readonly number[]): Promise<string> {
  const hash = createHash("sha256").update(`${config.heads} ${config.layerNormEpsilon} ${outputs.join()}`);
  for (const name of tensors.names.filter((name) => !unused.includes(name)).sort()) {
    const shape = tensors.shape(name)!;
    hash.update(`${name}:${shape.join()};`).update(bytesOf(await tensors.weight(name, shape)));
  }
  return hash.digest("hex").slice(0, 12);
}

/**
 * `runs.jsonl`: a line for each run that has ended, so that a comparison goes on where it stopped.
 * @module
 */
import { z } from "zod";
import { InputError } from "../core/errors.ts";
import { readJsonLines, writeJsonLines } from "../core/json_lines.ts";

const outcomeSchema = z.object({
  /** Optimiser steps taken. */
  steps: z.number(),
  /** Time spent in them. */
  seconds: z.number(),
  threads: z.number(),
  isa: z.string(),
  /** Zeros of the prunable weights of the kept model. */
  sparsity: z.number(),
  /** Mean evaluation loss of the kept model. */
  loss: z.number(),
  /** Its metrics by name. */
  metrics: z.record(z.string(), z.number()),
  /** The metric that models are chosen by. */
  primary: z.object({ name: z.string(), value: z.number(), higherIsBetter: z.boolean() }),
});

const failureSchema = z.object({
  /** What ended the run, on one line. */
  error: z.string(),
  /** Whether it was bad input, such as a full disk: then the run is made again when the comparison goes on. */
  isInput: z.boolean(),
});

const recordSchema = z.object({ key: z.string(), variant: z.string(), seed: z.number() })
  .and(z.union([outcomeSchema, failureSchema]));

/** What a run came to. */
export type RunOutcome = Readonly<z.infer<typeof outcomeSchema>>;

/** Why a run came to nothing. */
export type RunFailure = Readonly<z.infer<typeof failureSchema>>;

/** A line of the file. `variant` and `seed` are for its readers; equal keys are the same run. */
export type RunRecord =
  & { readonly key: string; readonly variant: string; readonly seed: number }
  & (RunOutcome | RunFailure);

/** Whether a run failed. */
export function hasFailed(record: RunRecord): record is RunRecord & RunFailure {
  return "error" in record;
}

/** The runs of a comparison, in memory and on the disk. */
export class RunLog {
  readonly #path: string;
  readonly #records: Map<string, RunRecord>;
  /** Ends when all writes so far have. */
  #written: Promise<void> = Promise.resolve();

  private constructor(path: string, records: readonly RunRecord[]) {
    this.#path = path;
    this.#records = new Map(records.map((record) => [record.key, record]));
  }

  /** Takes up a file, or begins one. @throws InputError for a file that is damaged. */
  static async open(path: string): Promise<RunLog> {
    const records = (await readJsonLines(path)).map(({ place, value }) => {
      const { success, data } = recordSchema.safeParse(value);
      if (success) return data;
      throw new InputError(`${place} is no run of a comparison: wanted a line that this command wrote`);
    });
    return new RunLog(path, records);
  }

  /** The run of a key, if it has ended. */
  get(key: string): RunRecord | undefined {
    return this.#records.get(key);
  }

  /** Adds a run, or replaces that of the same key; it is on the disk when this resolves. */
  add(record: RunRecord): Promise<void> {
    this.#records.set(record.key, record);
    // One after the other: a list written earlier must not replace a longer one.
    this.#written = this.#written.catch(() => {}).then(() =>
      writeJsonLines(this.#path, [...this.#records.values()])
    );
    return this.#written;
  }
}

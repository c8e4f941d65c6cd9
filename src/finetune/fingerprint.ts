/**
 * What must stay the same for a resumed run to go on to the same numbers.
 * @module
 */
import { createHash } from "node:crypto";
import type { EncodedExample } from "../data/batches.ts";
import type { Job } from "./job.ts";
import type { FinetuneSettings } from "./options.ts";

/** Settings and data, by the name a user knows them by. */
export type Fingerprint = Readonly<Record<string, string | number | boolean>>;

/**
 * Settings that may change between the sittings of a run. Threads may: results are the same for any count. Files may
 * move: what counts is what is in them.
 */
const free: ReadonlySet<string> = new Set<keyof FinetuneSettings>([
  "out",
  "overwrite",
  "resume",
  "threads",
  "isa",
  "saveSteps",
  "device",
  "train",
  "evaluation",
  "tokenizer",
]);

/** What decides the numbers of a run. */
export function fingerprintOf(settings: FinetuneSettings, { train, evaluation }: Job): Fingerprint {
  const entries = Object.entries(settings)
    .filter(([name, value]) => !free.has(name) && value !== undefined)
    .map(([name, value]) => [name, Array.isArray(value) ? value.join(",") : value]);
  return {
    ...Object.fromEntries(entries),
    "training data": digestOf(train),
    "evaluation data": digestOf(evaluation),
  };
}

/** A short hash of tokens and labels: files of the same name may hold other texts. */
function digestOf(examples: readonly EncodedExample[]): string {
  const hash = createHash("sha256");
  for (const { ids, label } of examples) hash.update(`${label}:${ids.join()};`);
  return hash.digest("hex").slice(0, 12);
}

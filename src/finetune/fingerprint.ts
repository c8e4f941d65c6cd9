/**
 * What must stay the same for a resumed run to go on to the same numbers.
 * @module
 */
import { createHash } from "node:crypto";
import type { Modifier } from "../recipes/modifiers.ts";
import { writeRecipe } from "../recipes/write.ts";
import type { AnyJob } from "./job.ts";
import { batchSizeOf, type FinetuneSettings } from "./options.ts";
import type { TeacherLogits } from "./teacher.ts";

/** Settings and data, by the name a user knows them by. */
export type Fingerprint = Readonly<Record<string, string | number | boolean>>;

/**
 * Settings that may change between the sittings of a run. Threads and checkpointing change no bit of a result; another
 * instruction set, device or precision does, which a resumed run says. Files may move: what counts is what is in them.
 */
const free: ReadonlySet<string> = new Set<keyof FinetuneSettings>([
  "out",
  "overwrite",
  "resume",
  "threads",
  "isa",
  "saveSteps",
  "gradientCheckpointing",
  "device",
  "precision",
  "train",
  "evaluation",
  "tokenizer",
  "recipe",
  "recipeArguments",
  "teacher",
]);

/** What a run is about, besides its settings. */
export interface FingerprintSource {
  readonly job: Pick<AnyJob, "digests">;
  readonly modifiers: readonly Modifier[];
  /** Answers of a teacher that is a folder. */
  readonly teacher?: TeacherLogits;
}

/** What decides the numbers of a run. What is off is left out, so that a new switch does not end old runs. */
export function fingerprintOf(
  settings: FinetuneSettings,
  { job: { digests }, modifiers, teacher }: FingerprintSource,
): Fingerprint {
  const entries = Object.entries({ ...settings, batchSize: batchSizeOf(settings) })
    .filter(([name, value]) => !free.has(name) && value !== undefined && value !== false)
    .map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value) : value] as const)
    .filter(([, value]) => value !== "{}");
  return {
    ...Object.fromEntries(entries),
    ...(settings.recipe === undefined ? {} : { recipe: digestOf(writeRecipe(modifiers)) }),
    ...(settings.teacher === undefined ? {} : { teacher: teacher?.digest ?? settings.teacher }),
    "training data": digests.train,
    "evaluation data": digests.evaluation,
  };
}

function digestOf(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 12);
}

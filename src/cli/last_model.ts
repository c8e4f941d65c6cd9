/**
 * The model that `infer` and `bench` use when none is named: the last one fine-tuned here.
 * @module
 */
import { dirname } from "node:path";
import { InputError } from "../core/errors.ts";
import { ensureFolder, exists, readJson, writeFileAtomic } from "../core/files.ts";

/** Where `finetune` notes the folder it exported. */
export const lastModelFile = "runs/last.json";

/** Notes the folder of a model just fine-tuned. Throws `InputError` where the note cannot be written. */
export async function noteLastModel(dir: string): Promise<void> {
  await ensureFolder(dirname(lastModelFile));
  await writeFileAtomic(lastModelFile, JSON.stringify({ model: dir }) + "\n");
}

/** The folder of the last fine-tuned model; undefined when there is none. */
export async function lastModel(): Promise<string | undefined> {
  if (!await exists(lastModelFile)) return undefined;
  const note = await readJson(lastModelFile) as { model?: unknown };
  if (typeof note.model !== "string") {
    throw new InputError(`${lastModelFile} names no model: wanted {"model": "<folder>"}`);
  }
  return await exists(note.model) ? note.model : undefined;
}

/** The model named by `--model`, else the last one. Throws `InputError` when there is neither. */
export async function chosenModel(named: string | undefined): Promise<string> {
  const model = named ?? await lastModel();
  if (model !== undefined) return model;
  throw new InputError(
    "--model is missing and nothing was fine-tuned here yet: run `deno task finetune` first",
  );
}

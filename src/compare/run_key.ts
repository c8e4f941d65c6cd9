/**
 * What a run's numbers depend on, as one short text: flags, seed, and what is in the files that flags name. Equal keys are the
 * same run, wherever its files lie.
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { join } from "node:path";
import { InputError } from "../core/errors.ts";
import { diskError, pathKind } from "../core/files.ts";
import type { Flags } from "./flags.ts";

/** Flags that name data: they must be there. */
const dataFlags = ["train", "eval"];
/** Flags that name a file, a folder, or something else: a preset, a model of the hub. */
const sourceFlags = ["model", "init", "tokenizer", "recipe", "teacher"];

/** Makes keys; each file is read once. */
export class RunKeys {
  readonly #digests = new Map<string, Promise<string>>();

  /** The key of a run. @throws InputError for data that are not there, or files that cannot be read. */
  async keyOf(flags: Flags, seed: number): Promise<string> {
    const entries = Object.keys(flags).sort().map(async (name) =>
      [name, await this.#contentOf(name, flags[name])] as const
    );
    const text = JSON.stringify([await Promise.all(entries), seed]);
    return createHash("sha256").update(text).digest("hex").slice(0, 24);
  }

  /** A digest in the place of a path. */
  async #contentOf(name: string, value: Flags[string]): Promise<unknown> {
    const isData = dataFlags.includes(name);
    if (typeof value !== "string" || !(isData || sourceFlags.includes(name))) return value;
    const kind = await pathKind(value);
    if (kind === undefined && isData) throw new InputError(`--${name} is ${value}: there is no such file`);
    if (kind === undefined) return value;
    let digest = this.#digests.get(value);
    if (!digest) this.#digests.set(value, digest = digestOf(value, kind));
    return await digest;
  }
}

async function digestOf(path: string, kind: "file" | "folder"): Promise<string> {
  const hash = createHash("sha256");
  if (kind === "file") await addFile(hash, path);
  else {
    const files = (await Array.fromAsync(Deno.readDir(path))).filter(({ isFile }) => isFile);
    for (const name of files.map(({ name }) => name).sort()) {
      hash.update(`${name}\n`);
      await addFile(hash, join(path, name));
    }
  }
  return hash.digest("hex");
}

async function addFile(hash: Hash, path: string): Promise<void> {
  try {
    const file = await Deno.open(path);
    for await (const bytes of file.readable) hash.update(bytes);
  } catch (error) {
    throw diskError("read", path, error);
  }
}

/**
 * Files of one JSON object a line, small enough to be written whole each time, so that no line is ever half there.
 * @module
 */
import { dirname } from "node:path";
import { InputError } from "./errors.ts";
import { ensureFolder, exists, readText, writeFileAtomic } from "./files.ts";
import { parseJson } from "./json.ts";

/** An object of a line, and where it is from: `runs/reviews/metrics.jsonl, line 3`. */
export interface JsonLine {
  readonly place: string;
  readonly value: Readonly<Record<string, unknown>>;
}

/** The objects of a file; none where it does not exist. @throws InputError naming the line that is no JSON object. */
export async function readJsonLines(path: string): Promise<JsonLine[]> {
  if (!await exists(path)) return [];
  const lines = (await readText(path)).split("\n");
  return lines.flatMap((line, index) => {
    if (line.trim() === "") return [];
    const place = `${path}, line ${index + 1}`;
    const value = parseJson(line, place);
    if (value === null || typeof value !== "object" || Array.isArray(value)) {
      throw new InputError(`${place} is ${line}: wanted a JSON object`);
    }
    return [{ place, value: value as Record<string, unknown> }];
  });
}

/** Replaces a file, and makes its folder where there is none. Numbers that JSON has not become null. */
export async function writeJsonLines(path: string, values: readonly object[]): Promise<void> {
  await ensureFolder(dirname(path));
  await writeFileAtomic(path, values.map((value) => `${JSON.stringify(value)}\n`).join(""));
}

/** A number of a line; null is NaN. @throws InputError for anything else. */
export function numberOf({ place, value }: JsonLine, name: string): number {
  const found = value[name];
  if (found === null) return NaN;
  if (typeof found === "number") return found;
  throw new InputError(`${place}: ${name} is ${JSON.stringify(found) ?? "missing"}, wanted a number`);
}

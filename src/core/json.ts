/**
 * JSON from outside, with errors that say where.
 *
 * `JSON.parse` leaves out the position in half of its messages and keeps the last of two equal keys, which is how
 * a crafted safetensors header hides a tensor. The scanner below finds both; it builds no values and does not
 * recurse, so hostile nesting costs memory in proportion to the text and nothing else.
 * @module
 */
import { InputError } from "./errors.ts";

/** Where a text stops being JSON, and why. */
export interface JsonFault {
  /** Index of the first UTF-16 unit that does not fit. */
  readonly position: number;
  /** What was found there, and what was wanted. */
  readonly problem: string;
}

/**
 * Parses JSON that came from `source` (a path, or words a user understands).
 * @throws InputError with source, line and column when the text is not JSON, or repeats a key where `uniqueKeys`.
 */
export function parseJson(text: string, source: string, options: { uniqueKeys?: boolean } = {}): unknown {
  if (options.uniqueKeys) refuse(findJsonFault(text, true), text, source);
  try {
    return JSON.parse(text);
  } catch (error) {
    refuse(findJsonFault(text, false), text, source);
    throw error;
  }
}

/** A value from outside, on one line and short enough for a message. NaN and ∞ keep their names. */
export function showValue(value: unknown): string {
  const text = typeof value === "number" ? String(value) : JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
}

function refuse(fault: JsonFault | undefined, text: string, source: string): void {
  if (fault === undefined) return;
  const before = text.slice(0, fault.position).split("\n");
  const column = before[before.length - 1].length + 1;
  throw new InputError(
    `${source} is not valid JSON: line ${before.length}, column ${column}: ${fault.problem}`,
  );
}

type Expected = "a value" | "a value or ]" | "a key" | "a key or }" | "a comma or the end";

const numberPattern = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const wordPattern = /true|false|null/y;
const escapePattern = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;

/** The first place where the text breaks RFC 8259, or repeats a key of one object where `uniqueKeys`. */
export function findJsonFault(text: string, uniqueKeys: boolean): JsonFault | undefined {
  /** Keys seen in each open object; `undefined` for an open array. */
  const open: (Set<string> | undefined)[] = [];
  let expected: Expected = "a value";
  let at = 0;
  for (;;) {
    at = skipSpace(text, at);
    const found = text[at];
    const inside = open[open.length - 1];
    if (expected === "a comma or the end") {
      if (open.length === 0) {
        return found === undefined ? undefined : fault(text, at, "the end of the text");
      }
      const closing = inside === undefined ? "]" : "}";
      if (found === closing) open.pop();
      else if (found === ",") expected = inside === undefined ? "a value" : "a key";
      else return fault(text, at, `"," or "${closing}"`);
      at++;
    } else if (expected === "a value or ]" && found === "]") {
      open.pop();
      expected = "a comma or the end";
      at++;
    } else if (expected === "a key or }" && found === "}") {
      open.pop();
      expected = "a comma or the end";
      at++;
    } else if (expected === "a key" || expected === "a key or }") {
      if (found !== '"') return fault(text, at, "a key in double quotes");
      const end = stringEnd(text, at);
      if (typeof end !== "number") return end;
      const key = JSON.parse(text.slice(at, end)) as string;
      if (uniqueKeys && inside!.has(key)) {
        return { position: at, problem: `the key ${showValue(key)} appears twice` };
      }
      inside!.add(key);
      at = skipSpace(text, end);
      if (text[at] !== ":") return fault(text, at, '":"');
      expected = "a value";
      at++;
    } else if (found === "{") {
      open.push(new Set());
      expected = "a key or }";
      at++;
    } else if (found === "[") {
      open.push(undefined);
      expected = "a value or ]";
      at++;
    } else {
      const end = found === '"'
        ? stringEnd(text, at)
        : matchEnd(numberPattern, text, at) ?? matchEnd(wordPattern, text, at);
      if (end === undefined) return fault(text, at, expected);
      if (typeof end !== "number") return end;
      expected = "a comma or the end";
      at = end;
    }
  }
}

function skipSpace(text: string, at: number): number {
  while (text[at] === " " || text[at] === "\n" || text[at] === "\r" || text[at] === "\t") at++;
  return at;
}

function matchEnd(pattern: RegExp, text: string, at: number): number | undefined {
  pattern.lastIndex = at;
  return pattern.test(text) ? pattern.lastIndex : undefined;
}

/** Index after the closing quote of the string that opens at `start`. */
function stringEnd(text: string, start: number): number | JsonFault {
  let at = start + 1;
  while (at < text.length) {
    const unit = text.charCodeAt(at);
    if (unit === 0x22) return at + 1;
    if (unit < 0x20) return fault(text, at, "no control character in a string");
    if (unit === 0x5c) {
      const end = matchEnd(escapePattern, text, at);
      if (end === undefined) return { position: at, problem: "a backslash starts no known escape" };
      at = end;
    } else at++;
  }
  return { position: start, problem: "a string has no closing quote" };
}

function fault(text: string, position: number, wanted: string): JsonFault {
  const found = position < text.length
    ? JSON.stringify(String.fromCodePoint(text.codePointAt(position)!))
    : "the end";
  return { position, problem: `found ${found}, wanted ${wanted}` };
}

/**
 * How users name parameters: by a name, by a module, or by an expression.
 * @module
 */
import { InputError } from "./errors.ts";

/**
 * Whether a name such as `….query.weight` is meant by a pattern: by itself, by a module that it is in (`….query`, or one above),
 * or by `re:` and an expression that the name or its module begins with, which is Python's `re.match`. Throws InputError for
 * what is no expression; `what` says there what the pattern was for.
 */
export function nameMatcher(pattern: string, what: string): (name: string) => boolean {
  if (!pattern.startsWith("re:")) return (name) => name === pattern || name.startsWith(`${pattern}.`);
  const expression = beginningWith(pattern, what);
  return (name) => expression.test(name) || expression.test(moduleOf(name));
}

function beginningWith(pattern: string, what: string): RegExp {
  try {
    return new RegExp(`^(?:${pattern.slice("re:".length)})`);
  } catch (error) {
    throw new InputError(`${what} ${pattern} is no regular expression: ${(error as Error).message}`);
  }
}

function moduleOf(name: string): string {
  return name.slice(0, Math.max(0, name.lastIndexOf(".")));
}

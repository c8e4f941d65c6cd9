/**
 * The kinds of failure a user can meet, and how a command turns them into an exit code.
 *
 * Every message is one line that names what was wrong, the value found and the value wanted.
 * @module
 */

/** Bad input of any kind: a file, flag, recipe, tensor or text. Commands print it and exit with code 2. */
export class InputError extends Error {
  /** The class name, so that the error keeps its kind when it crosses a worker boundary. */
  override readonly name = "InputError";
}

/** A feature this machine, build or file does not have. The message says which, and why. */
export class UnsupportedError extends Error {
  /** The class name, so that the error keeps its kind when it crosses a worker boundary. */
  override readonly name = "UnsupportedError";
}

/** A run was stopped from outside; its state is saved. */
export class Interrupted extends Error {
  /** The class name. */
  override readonly name = "Interrupted";
}

/** The message of anything that was thrown, on one line. */
export function errorMessage(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/\s*\n\s*/g, " ").trim();
}

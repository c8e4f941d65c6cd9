/**
 * Errors that come from another thread.
 * @module
 */
import { InputError, UnsupportedError } from "../src/core/errors.ts";

/** An error as it was thrown: threads pass on its name and its message, but not its class. */
export function ofItsKind(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  if (error.name === "InputError") return new InputError(error.message);
  if (error.name === "UnsupportedError") return new UnsupportedError(error.message);
  return error;
}

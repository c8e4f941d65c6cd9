/**
 * WebGPU tells what is wrong later, and in many lines: here it becomes one line at the call that is to blame.
 * @module
 */

/** Runs `action`; `problem` is the first thing that WebGPU finds wrong with what it did, in one line. */
export function scoped<T>(
  device: GPUDevice,
  action: () => T,
): { readonly value: T; readonly problem: Promise<string | undefined> } {
  device.pushErrorScope("out-of-memory");
  device.pushErrorScope("internal");
  device.pushErrorScope("validation");
  let value: T;
  let scopes: Promise<(GPUError | null)[]>;
  try {
    value = action();
  } finally {
    scopes = Promise.all([device.popErrorScope(), device.popErrorScope(), device.popErrorScope()]);
  }
  const problem = scopes.then((errors) => {
    const error = errors.find((error) => error !== null);
    return error && oneLine(error.message);
  });
  return { value, problem };
}

/** A message of WebGPU without the drawing of the code. */
export function oneLine(message: string): string {
  const lines = message.split("\n").map((line) => line.trim());
  return lines.filter((line) => line !== "" && !/^(\d+ )?[│┌╭·]/u.test(line)).join("; ");
}

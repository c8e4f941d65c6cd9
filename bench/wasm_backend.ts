/**
 * transformers.js on its WebAssembly backend, which under Deno has to be put in its hands.
 *
 * Under Deno transformers.js takes ONNX Runtime's native library. It takes another ONNX Runtime where it finds one under
 * `Symbol.for("onnxruntime")` when it is imported, so this module puts onnxruntime-web there, in the version
 * transformers.js itself depends on (a test holds `deno.json` to it): SIMD and threads, with the modules of the package
 * instead of those of a CDN.
 * That choice is the process's: transformers.js runs either natively or on WebAssembly, whichever was opened first.
 * @module
 */

/** Imports transformers.js on onnxruntime-web with that many threads, the calling one included. */
export async function importTransformersOnWasm(
  threads: number,
): Promise<typeof import("@xenova/transformers")> {
  const ort = await import("onnxruntime-web");
  const { wasm } = ort.env;
  // Unset until first use; the module is started once, with one number of threads.
  if (wasm.numThreads !== undefined && wasm.numThreads !== threads) {
    throw new RangeError(
      `Cannot run onnxruntime-web on ${threads} threads: this process has started it with ${wasm.numThreads}`,
    );
  }
  wasm.numThreads = threads;
  Object.assign(globalThis, { [Symbol.for("onnxruntime")]: ort });
  const transformers = await import("@xenova/transformers");
  const versions: { web?: string } | undefined = transformers.env.backends.onnx.versions;
  if (versions?.web === undefined) {
    throw new Error(
      "Cannot run transformers.js on WebAssembly: this process has opened it on the native library",
    );
  }
  delete wasm.wasmPaths;
  transformers.env.useWasmCache = false;
  return transformers;
}

/** Runs `start`, in which onnxruntime-web puts Node's `Worker` in the place of Deno's, and puts that back. */
export async function keepingWorker<T>(start: () => Promise<T>): Promise<T> {
  const { Worker } = globalThis;
  try {
    return await start();
  } finally {
    globalThis.Worker = Worker;
  }
}

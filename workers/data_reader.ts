/**
 * A `DataReader` on a thread of its own, so that the caller's event loop stays free.
 * @module
 */
import * as comlink from "comlink";
import type { DataReader, DataSource, DataSummary, EncodedData, EncodeRequest } from "../src/data/reader.ts";
import type { DataWorker } from "./data_worker.ts";
import { ThreadCalls } from "./thread_calls.ts";

/** How often progress is told, in ms: often enough for the eye. */
const progressMs = 100;

/** Starts its thread at once. */
export class WorkerDataReader implements DataReader {
  readonly #worker: Worker;
  readonly #remote: comlink.Remote<DataWorker>;
  readonly #calls: ThreadCalls<DataWorker>;
  #isDisposed = false;

  constructor() {
    this.#worker = new Worker(new URL("./data_worker.ts", import.meta.url), {
      type: "module",
      name: "lacuna-data",
    });
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#calls.fail(`Cannot read the data: the thread died: ${event.message}`);
    });
    this.#remote = comlink.wrap<DataWorker>(this.#worker);
    this.#calls = new ThreadCalls(this.#remote);
  }

  /** See `DataReader.read`. */
  read(source: DataSource): Promise<DataSummary> {
    return this.#calls.call((remote) => remote.read(source));
  }

  /** See `DataReader.vocabulary`. */
  vocabulary(): Promise<string[]> {
    return this.#calls.call((remote) => remote.vocabulary());
  }

  /** See `DataReader.encode`. */
  async encode(request: EncodeRequest, progress: (rows: number) => void = () => {}): Promise<EncodedData> {
    const done = new Int32Array(new SharedArrayBuffer(4));
    const timer = setInterval(() => progress(Atomics.load(done, 0)), progressMs);
    try {
      return await this.#calls.call((remote) => remote.encode(request, done));
    } finally {
      clearInterval(timer);
    }
  }

  /** See `DataReader.dispose`. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#calls.fail("Cannot read the data: the reader is disposed");
    this.#remote[comlink.releaseProxy]();
    this.#worker.terminate();
  }
}

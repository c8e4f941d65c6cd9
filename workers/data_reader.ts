/**
 * A `DataReader` on a thread of its own, so that the caller's event loop stays free.
 * @module
 */
import * as comlink from "comlink";
import type { DataReader, DataSource, DataSummary, EncodedData, EncodeRequest } from "../src/data/reader.ts";
import type { DataWorker } from "./data_worker.ts";
import { ofItsKind } from "./errors.ts";

/** How often progress is told, in ms: often enough for the eye. */
const progressMs = 100;

/** Starts its thread at once. */
export class WorkerDataReader implements DataReader {
  readonly #worker: Worker;
  readonly #remote: comlink.Remote<DataWorker>;
  /** Rejections of the calls under way. */
  readonly #pending = new Set<(error: Error) => void>();
  #failure: Error | undefined;
  #isDisposed = false;

  constructor() {
    this.#worker = new Worker(new URL("./data_worker.ts", import.meta.url), {
      type: "module",
      name: "lacuna-data",
    });
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#fail(`the thread died: ${event.message}`);
    });
    this.#remote = comlink.wrap<DataWorker>(this.#worker);
  }

  /** See `DataReader.read`. */
  read(source: DataSource): Promise<DataSummary> {
    return this.#call((remote) => remote.read(source));
  }

  /** See `DataReader.vocabulary`. */
  vocabulary(): Promise<string[]> {
    return this.#call((remote) => remote.vocabulary());
  }

  /** See `DataReader.encode`. */
  async encode(request: EncodeRequest, progress: (rows: number) => void = () => {}): Promise<EncodedData> {
    const done = new Int32Array(new SharedArrayBuffer(4));
    const timer = setInterval(() => progress(Atomics.load(done, 0)), progressMs);
    try {
      return await this.#call((remote) => remote.encode(request, done));
    } finally {
      clearInterval(timer);
    }
  }

  /** See `DataReader.dispose`. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#fail("the reader is disposed");
    this.#remote[comlink.releaseProxy]();
    this.#worker.terminate();
  }

  /** Waits for an answer, or for the end of the thread. */
  #call<T>(ask: (remote: comlink.Remote<DataWorker>) => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      this.#pending.add(reject);
      ask(this.#remote)
        .then(resolve, (error) => reject(ofItsKind(error)))
        .finally(() => this.#pending.delete(reject));
    });
  }

  #fail(reason: string): void {
    this.#failure ??= new Error(`Cannot read the data: ${reason}`);
    for (const reject of this.#pending) reject(this.#failure);
  }
}

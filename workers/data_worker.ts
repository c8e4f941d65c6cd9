/**
 * The thread that reads and tokenises texts.
 * @module
 */
import * as comlink from "comlink";
import { buffersOf } from "../src/data/encoded_set.ts";
import {
  type DataSource,
  type DataSummary,
  type EncodedData,
  type EncodeRequest,
  TextReader,
} from "../src/data/reader.ts";

/** The calls of the thread, as `DataReader` has them; progress is a word in shared memory. */
export class DataWorker {
  readonly #reader = new TextReader();

  /** See `DataReader.read`. */
  read(source: DataSource): Promise<DataSummary> {
    return this.#reader.read(source);
  }

  /** See `DataReader.vocabulary`. */
  vocabulary(): string[] {
    return this.#reader.vocabulary();
  }

  /** See `DataReader.encode`. Rows done are stored in `progress[0]`. */
  encode(request: EncodeRequest, progress: Int32Array): EncodedData {
    const data = this.#reader.encode(request, (rows) => Atomics.store(progress, 0, rows));
    return comlink.transfer(data, [...buffersOf(data.train), ...buffersOf(data.evaluation)]);
  }
}

comlink.expose(new DataWorker());

/**
 * Random pruned models for tests, texts for them, and the logits that they should give, in float64.
 * @module
 */
import assert from "node:assert/strict";
import { bertInputs, buildBert } from "../../models/bert.ts";
import { type BertConfig, bertConfigJson, bertTensorShapes } from "../../models/config.ts";
import { saveModel } from "../checkpoint/model_folder.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import { makeBatchViews, packBatch } from "../data/batches.ts";
import { Graph } from "../graph/graph.ts";
import { interpret } from "../graph/interpreter.ts";
import type { NumberArray } from "../graph/operation.ts";
import { InlineExecutor } from "../plan/executor.ts";
import { blockShape, type Pattern } from "../pruning/pattern.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import type { SessionInput } from "./encoder_session.ts";
import type { SessionOptions } from "./session.ts";

/** What a random model is like. */
export interface RandomModelOptions {
  readonly config: BertConfig;
  /** Blocks of the prunable matrices are kept whole or not at all. */
  readonly pattern: Pattern;
  /** Share of the blocks kept; or the share for one row of blocks of a matrix, from 0 (none) to 1 (all). */
  readonly density: number | ((name: string, blockRow: number) => number);
  /** Standard deviation of what is kept, and of the biases. */
  readonly deviation: number;
}

/** A model folder, removed by `await using`. */
export class RandomModel implements AsyncDisposable {
  private constructor(
    readonly config: BertConfig,
    readonly folder: string,
    /** By checkpoint name. */
    readonly weights: ReadonlyMap<string, Float32Array>,
  ) {}

  /** Writes a model that is the same for the same options. */
  static async write(options: RandomModelOptions): Promise<RandomModel> {
    const { config } = options;
    const tensors = Array.from(
      bertTensorShapes(config),
      ([name, shape]) => ({ name, shape, data: randomTensor(name, shape, options) }),
    );
    const folder = await Deno.makeTempDir();
    await saveModel(folder, {
      configJson: bertConfigJson(config),
      tensors,
      tokenizerFiles: new Map(),
      format: "sparse-bitmask",
      overwrite: true,
    });
    return new RandomModel(config, folder, new Map(tensors.map(({ name, data }) => [name, data])));
  }

  /** Texts of the given lengths. */
  texts(lengths: readonly number[], seed: number): SessionInput[] {
    const stream = new RandomStream(randomKey(seed, "texts"));
    return lengths.map((length) => ({
      ids: Int32Array.from({ length }, () => stream.below(this.config.vocabularySize)),
      typeIds: Uint8Array.from({ length }, (_, i) => i > length / 2 ? 1 : 0),
    }));
  }

  /** Logits in float64 from the references of the operations. */
  expectedLogits(inputs: readonly SessionInput[]): Float64Array[] {
    const { config } = this;
    const columns = inputs.reduce((sum, { ids }) => sum + ids.length, 0);
    const sequences = inputs.length;
    const graph = new Graph();
    const { logits } = buildBert(graph, config, { columns, sequences, mode: "infer" });
    const views = makeBatchViews({ columns, sequences });
    packBatch(inputs.map((input) => ({ ...input, label: -1 })), views);
    const feeds = new Map<string, NumberArray>(
      Object.entries({ ...views, [bertInputs.seed]: new Int32Array(2) }),
    );
    for (const [name, data] of this.weights) feeds.set(name, Float64Array.from(data));
    const values = interpret(graph, feeds).get(logits.id)!;
    return inputs.map((_, column) =>
      Float64Array.from({ length: config.labels.length }, (_, k) => values[k * sequences + column])
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

function randomTensor(
  name: string,
  shape: readonly number[],
  { pattern, density, deviation }: RandomModelOptions,
): Float32Array {
  const stream = new RandomStream(randomKey(3, name));
  const data = new Float32Array(shape.reduce((a, b) => a * b));
  if (!isPrunable(name)) {
    const mean = name.endsWith("LayerNorm.weight") ? 1 : 0;
    data.forEach((_, i) => data[i] = mean + deviation * stream.normal());
    return data;
  }
  const [rows, columns] = shape;
  const { rows: height, columns: width } = blockShape(pattern);
  for (let top = 0; top < rows; top += height) {
    const kept = typeof density === "number" ? density : density(name, top / height);
    for (let left = 0; left < columns; left += width) {
      if (stream.uniform() >= kept) continue;
      for (let row = top; row < Math.min(top + height, rows); row++) {
        for (let column = left; column < Math.min(left + width, columns); column++) {
          data[row * columns + column] = deviation * stream.normal();
        }
      }
    }
  }
  return data;
}

/** Asserts that logits differ by at most `tolerance` of the reference, or of 1 where that is less. */
export function assertLogits(
  found: readonly Float32Array[],
  expected: readonly ArrayLike<number>[],
  what: string,
  tolerance = 1e-4,
): void {
  assert.equal(found.length, expected.length);
  found.forEach((row, text) => {
    assert.equal(row.length, expected[text].length);
    row.forEach((value, k) => {
      const wanted = expected[text][k];
      assert.ok(
        Math.abs(value - wanted) <= tolerance * Math.max(1, Math.abs(wanted)),
        `${what}: text ${text}, class ${k}: found ${value}, expected ${wanted}`,
      );
    });
  });
}

/** An executor on the calling thread whose memory is full of NaN, so that a read of stale data shows. */
export const poisoned: SessionOptions["createExecutor"] = (options) => {
  new Uint32Array(options.arena.memory.buffer).fill(0x7fc0dead);
  return Promise.resolve(new InlineExecutor(options.machine, options.threads, options.arena));
};

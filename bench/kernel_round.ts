/**
 * Kernels that take turns on one shape: what `kernels.ts` measures, made, checked and timed.
 *
 * Between two calls of one contestant all others with their weights pass, so weights come from beyond the L2 cache and
 * branches are not learned by heart. Every contestant's first answer is compared with sums in float64.
 * @module
 */
import { randomKey, RandomStream } from "../src/core/random.ts";
import {
  byteLength,
  Graph,
  indices as indexList,
  rows,
  tiled,
  type Value,
  type ValueType,
} from "../src/graph/graph.ts";
import { tiledIndex } from "../src/graph/layout.ts";
import type { NumberArray, Operation } from "../src/graph/operation.ts";
import { attention } from "../src/kernels/attention/operation.ts";
import { embedding } from "../src/kernels/embedding/operation.ts";
import { gatherValues } from "../src/kernels/gather/operation.ts";
import { gelu } from "../src/kernels/gelu/operation.ts";
import { layerNorm } from "../src/kernels/layer_norm/operation.ts";
import { matmulWeightGradient } from "../src/kernels/matmul/gradient.ts";
import { matmul } from "../src/kernels/matmul/operation.ts";
import { type Blocking, chooseBlocking } from "../src/kernels/sparse_matmul/blocking.ts";
import {
  sparseMatmulInputGradient,
  sparseMatmulWeightGradient,
} from "../src/kernels/sparse_matmul/gradient.ts";
import { writeOperand } from "../src/kernels/matmul/timing.ts";
import { sparseMatmul } from "../src/kernels/sparse_matmul/operation.ts";
import { packSparse, type SparsePattern } from "../src/kernels/sparse_matmul/pack.ts";
import { takeStored, trainingStructure } from "../src/kernels/sparse_matmul/training_structure.ts";
import { packedTypes } from "../src/kernels/sparse_matmul/types.ts";
import { levelOneBytes, type Machine } from "../src/machines/mod.ts";
import { Arena } from "../src/plan/arena.ts";
import { InlineExecutor, prepare } from "../src/plan/executor.ts";
import { planBytes, planGraph, usualTile } from "../src/plan/plan.ts";
import { programBytes } from "../src/plan/program.ts";
import { bitsetWords, setBit } from "../src/pruning/bitset.ts";
import { zeroPruned } from "../src/pruning/method.ts";
import { blockGrid, expandBlockMask } from "../src/pruning/pattern.ts";

/** A matrix of a model. */
export interface KernelShape {
  readonly name: string;
  /** Output features. */
  readonly outputs: number;
  /** Input features. */
  readonly inputs: number;
}

/** One kernel at one shape. Rates in 10⁹ a second. */
export interface KernelRow {
  readonly kernel: "dense" | SparsePattern | "embedding" | "attention" | "layerNorm" | "gelu";
  /** What of a layer y = W·x: itself, or what training computes from the gradient of y. Others are `forward`. */
  readonly product: "forward" | "gradient of x" | "gradient of W";
  readonly shape: string;
  readonly tokens: number;
  /** Share of zeros, counted; 0 for kernels without weights to leave out. */
  readonly sparsity: number;
  /** With sparse gradients of x that are products by a packed transpose: gathering its values included. */
  readonly time_us: number;
  /** Operations done, 2 for a multiply-add; of layerNorm and gelu a nominal 1 for each element. */
  readonly gflops: number;
  /** What a dense kernel would have to do in the same time. */
  readonly dense_equivalent_gflops: number;
  readonly share_of_peak: number;
  /** Weights that are read; 0 for gradients of W and kernels without weights. */
  readonly weight_bytes: number;
  /** The weights as the kernel reads them, once for each tile of tokens. */
  readonly weight_gb_s: number;
  /** Of the rate at which a buffer in the L2 cache is read. */
  readonly share_of_l2: number;
  /** The weights read once, of the rate at which a buffer larger than the L2 cache is read. */
  readonly share_of_memory: number;
  /** Inputs and result, each once; of an embedding's tables the rows it reads. */
  readonly moved_bytes: number;
  /** Those over the time. */
  readonly moved_gb_s: number;
  /** The same, of the rate at which a buffer larger than the L2 cache is read: above 1 for what caches hold. */
  readonly moved_share_of_memory: number;
  /** Time of the dense twin over this time; 1 for those that have none. */
  readonly speedup_vs_dense: number;
  /** Largest difference from sums in float64, over the largest of the sums. */
  readonly error: number;
}

/** 10⁹ bytes a second that one core reads from a buffer of half an L2 cache, and from one of 64 MiB. */
export interface Bandwidth {
  readonly l2_gb_s: number;
  readonly memory_gb_s: number;
}

/** Most error that is rounding: a sum of thousands of products in f32 is off by some parts in a million. */
const tolerance = 2e-5;

/** An operand. Matrices are row-major. */
interface Data {
  readonly type: ValueType;
  readonly data: NumberArray;
}

/** The right value of an element of a result, counted row-major. */
interface Sample {
  readonly index: number;
  readonly value: number;
}

type Apply = (graph: Graph, inputs: readonly Value[]) => Value;

interface Contestant {
  readonly kernel: KernelRow["kernel"];
  readonly product: KernelRow["product"];
  readonly sparsity: number;
  /** Operations of a call, and of its dense twin. */
  readonly operations: number;
  readonly denseOperations: number;
  readonly weightBytes: number;
  readonly inputs: readonly Data[];
  /** Bytes of the inputs that are read; absent: all. */
  readonly readBytes?: number;
  readonly apply: Apply;
  readonly expected: readonly Sample[];
}

/** A contestant that can be called. */
interface Run {
  readonly call: () => Promise<void>;
  readonly error: number;
  readonly movedBytes: number;
}

/** Kernels that take turns on one shape. */
export class Round {
  readonly #machine: Machine;
  readonly #tokens: number;
  readonly #tile: number;
  readonly #contestants: Contestant[] = [];
  readonly #random = new RandomStream(randomKey(1, "kernels"));

  constructor(machine: Machine, tokens: number) {
    this.#machine = machine;
    this.#tile = Math.min(usualTile(machine.lanes), tokens);
    this.#tokens = tokens;
  }

  /** The dense kernel and each pattern at each sparsity. */
  addMatrix({ outputs, inputs }: KernelShape, sparsities: readonly number[]): void {
    const columns = this.#tokens;
    const product = "forward";
    const denseOperations = 2 * outputs * inputs * columns;
    const activation = "none";
    const x = this.#matrix(inputs);
    const weight = this.#numbers(outputs * inputs);
    const expected = (weights: Float32Array) =>
      this.#samples(outputs * columns, (index) => {
        const [output, column] = [Math.floor(index / columns), index % columns];
        return sum(inputs, (k) => weights[output * inputs + k] * x.data[k * columns + column]);
      });
    this.#contestants.push({
      kernel: "dense",
      product,
      sparsity: 0,
      operations: denseOperations,
      denseOperations,
      weightBytes: weight.byteLength,
      inputs: [x, { type: rows(outputs, inputs), data: weight }],
      apply: applying(matmul, { transposed: false, activation }),
      expected: expected(weight),
    });
    for (const { pattern, sparsity } of variants(sparsities)) {
      const pruned = weight.slice();
      zeroPruned(this.#mask(pattern, outputs, inputs, sparsity), [pruned]);
      const { bytes, structure } = packSparse(pruned, [outputs, inputs], {
        pattern,
        ...this.#cut(pattern, outputs, inputs),
      });
      const types = packedTypes(structure);
      const [indicesOffset] = structure.indexOffsets;
      this.#contestants.push({
        kernel: pattern,
        product,
        sparsity: 1 - structure.nnz / (outputs * inputs),
        operations: 2 * structure.nnz * columns,
        denseOperations,
        weightBytes: bytes.length,
        inputs: [
          x,
          { type: types.values, data: new Float32Array(bytes.buffer, 0, indicesOffset / 4) },
          { type: types.indices, data: bytes.subarray(indicesOffset) },
        ],
        apply: applying(sparseMatmul, { structure, activation }),
        expected: expected(pruned),
      });
    }
  }

  /** The two products that training adds, dense and with each pattern at each sparsity, as `trainer.ts` has them run. */
  addGradients({ outputs, inputs }: KernelShape, sparsities: readonly number[]): void {
    const columns = this.#tokens;
    const denseOperations = 2 * outputs * inputs * columns;
    const activation = "none";
    const [x, gradY] = [this.#matrix(inputs), this.#matrix(outputs)];
    const weight = this.#numbers(outputs * inputs);
    const gradientOfX = (weights: Float32Array) =>
      this.#samples(inputs * columns, (index) => {
        const [input, column] = [Math.floor(index / columns), index % columns];
        return sum(outputs, (k) => weights[k * inputs + input] * gradY.data[k * columns + column]);
      });
    const gradientOfWeight = (position: number) => {
      const [output, input] = [Math.floor(position / inputs), position % inputs];
      return sum(columns, (c) => gradY.data[output * columns + c] * x.data[input * columns + c]);
    };
    const dense = { kernel: "dense", sparsity: 0, operations: denseOperations, denseOperations } as const;
    this.#contestants.push({
      ...dense,
      product: "gradient of x",
      weightBytes: weight.byteLength,
      inputs: [gradY, { type: rows(outputs, inputs), data: weight }],
      apply: applying(matmul, { transposed: true, activation }),
      expected: gradientOfX(weight),
    }, {
      ...dense,
      product: "gradient of W",
      weightBytes: 0,
      inputs: [gradY, x],
      apply: applying(matmulWeightGradient, {}),
      expected: this.#samples(outputs * inputs, gradientOfWeight),
    });
    for (const { pattern, sparsity } of variants(sparsities)) {
      const mask = this.#mask(pattern, outputs, inputs, sparsity);
      const { structure, indices, positions, transposed } = trainingStructure({
        rows: outputs,
        depth: inputs,
        mask,
        pattern,
        cut: this.#cut(pattern, outputs, inputs),
        transposedCut: this.#cut(pattern, inputs, outputs),
      });
      const pruned = weight.slice();
      zeroPruned(mask, [pruned]);
      const stored = new Float32Array(positions.length);
      takeStored(weight, positions, stored);
      const types = packedTypes(structure);
      const values = { type: types.values, data: stored };
      const list = { type: types.indices, data: indices };
      const sparse = {
        kernel: pattern,
        sparsity: 1 - structure.nnz / (outputs * inputs),
        operations: 2 * structure.nnz * columns,
        denseOperations,
      };
      this.#contestants.push({
        ...sparse,
        product: "gradient of x",
        weightBytes: stored.byteLength + (transposed ?? { indices }).indices.byteLength,
        ...(transposed
          ? {
            inputs: [gradY, values, {
              type: indexList(transposed.permutation.length),
              data: transposed.permutation,
            }, { type: packedTypes(transposed.structure).indices, data: transposed.indices }],
            apply: (graph, [gradY, values, permutation, list]) => {
              const [gathered] = graph.apply(gatherValues, {}, [values, permutation]);
              const attributes = { structure: transposed.structure, activation } as const;
              return graph.apply(sparseMatmul, attributes, [gradY, gathered, list])[0];
            },
          }
          : { inputs: [gradY, values, list], apply: applying(sparseMatmulInputGradient, { structure }) }),
        expected: gradientOfX(pruned),
      }, {
        ...sparse,
        product: "gradient of W",
        weightBytes: 0,
        inputs: [gradY, x, list],
        apply: applying(sparseMatmulWeightGradient, { structure }),
        expected: this.#samples(
          positions.length,
          (index) => positions[index] < 0 ? 0 : gradientOfWeight(positions[index]),
        ),
      });
    }
  }

  /** What a layer does beside its matrices, at the sizes of BERT-base; sequences of at most 128 tokens. */
  addOthers(): void {
    const [heads, hidden, columns] = [12, 768, this.#tokens];
    const length = Math.min(128, columns);
    const addPlain = <A>(
      operation: Operation<A>,
      attributes: A,
      operations: number,
      inputs: readonly Data[],
      readBytes?: number,
    ) =>
      this.#contestants.push({
        kernel: operation.name as KernelRow["kernel"],
        product: "forward",
        sparsity: 0,
        operations,
        denseOperations: operations,
        weightBytes: 0,
        inputs,
        readBytes,
        apply: applying(operation, attributes),
        expected: fromReference(operation, attributes, inputs),
      });
    const list = (data: Int32Array): Data => ({ type: indexList(data.length), data });
    const vector = () => ({ type: rows(hidden), data: this.#numbers(hidden) });
    const table = (count: number) => ({ type: rows(count, hidden), data: this.#numbers(count * hidden) });
    const ids = (id: (column: number) => number) =>
      list(Int32Array.from({ length: columns }, (_, c) => id(c)));

    // A part of the vocabulary: a batch reads few rows of it, far apart.
    const words = 8192;
    addPlain(
      embedding,
      {},
      2 * hidden * columns,
      [
        table(words),
        table(length),
        table(2),
        ids(() => this.#random.below(words)),
        ids((column) => column % length),
        ids(() => 0),
      ],
      3 * 4 * (hidden + 1) * columns,
    );
    addPlain(attention, { heads, dropout: 0, stream: 0, training: false }, 4 * length * columns * hidden, [
      this.#matrix(hidden),
      this.#matrix(hidden),
      this.#matrix(hidden),
      list(Int32Array.from({ length: columns / length + 1 }, (_, i) => i * length)),
    ]);
    addPlain(layerNorm, { epsilon: 1e-12, training: false }, hidden * columns, [
      this.#matrix(hidden),
      this.#matrix(hidden),
      vector(),
      vector(),
    ]);
    addPlain(gelu, {}, 4 * hidden * columns, [this.#matrix(4 * hidden)]);
  }

  /** Measures all. */
  async run(shape: string, seconds: number, peak: number, bandwidth: Bandwidth): Promise<KernelRow[]> {
    const runs = await this.#prepare();
    const best = await fastest(runs, seconds);
    return this.#contestants.map((contestant, i): KernelRow => {
      const { kernel, product, sparsity, operations, denseOperations, weightBytes } = contestant;
      const { error, movedBytes } = runs[i];
      if (!(error <= tolerance)) {
        throw new Error(
          `${kernel}, ${product}, at ${shape}, ${this.#tokens} tokens, is wrong by ${error} of its largest value`,
        );
      }
      const rate = (amount: number) => amount / best[i] / 1e9;
      const weightRate = rate(weightBytes * this.#tokens / this.#tile);
      const twin = this.#contestants.findIndex((other) =>
        other.kernel === "dense" && other.product === product
      );
      return {
        kernel,
        product,
        shape,
        tokens: this.#tokens,
        sparsity,
        time_us: best[i] * 1e6,
        gflops: rate(operations),
        dense_equivalent_gflops: rate(denseOperations),
        share_of_peak: rate(operations) / peak,
        weight_bytes: weightBytes,
        weight_gb_s: weightRate,
        share_of_l2: weightRate / bandwidth.l2_gb_s,
        share_of_memory: rate(weightBytes) / bandwidth.memory_gb_s,
        moved_bytes: movedBytes,
        moved_gb_s: rate(movedBytes),
        moved_share_of_memory: rate(movedBytes) / bandwidth.memory_gb_s,
        speedup_vs_dense: twin < 0 ? 1 : best[twin] / best[i],
        error,
      };
    });
  }

  #numbers(length: number): Float32Array {
    const numbers = new Float32Array(length);
    for (let i = 0; i < length; i++) numbers[i] = this.#random.uniform() - 0.5;
    return numbers;
  }

  /** Activations. */
  #matrix(features: number): Data {
    return { type: tiled(features, this.#tokens), data: this.#numbers(features * this.#tokens) };
  }

  /** Leaves out that share of a pattern's blocks. */
  #mask(pattern: SparsePattern, outputs: number, inputs: number, sparsity: number): Uint32Array {
    const matrix = { rows: outputs, columns: inputs };
    const grid = blockGrid(pattern, matrix);
    const blocks = new Uint32Array(bitsetWords(grid.rows * grid.columns));
    for (let block = 0; block < grid.rows * grid.columns; block++) {
      if (this.#random.uniform() >= sparsity) setBit(blocks, block);
    }
    return expandBlockMask(blocks, pattern, matrix);
  }

  #cut(pattern: SparsePattern, outputs: number, inputs: number): Blocking {
    const { lanes } = this.#machine;
    return chooseBlocking({ pattern, rows: outputs, depth: inputs }, {
      lanes,
      tile: usualTile(lanes),
      workers: 1,
      levelOneBytes: levelOneBytes(),
    });
  }

  /** Some elements of a result. */
  #samples(elements: number, valueOf: (index: number) => number): Sample[] {
    return Array.from({ length: 64 }, () => {
      const index = this.#random.below(elements);
      return { index, value: valueOf(index) };
    });
  }

  /**
   * Plans every contestant into one arena, where they share operands they have in common and the place of the result,
   * runs each once and checks its answer.
   */
  async #prepare(): Promise<Run[]> {
    const { lanes, vectorRegisters } = this.#machine;
    const target = { lanes, vectorRegisters, tile: this.#tile, workers: 1 };
    const graphs = this.#contestants.map(({ apply, inputs }) => {
      const graph = new Graph();
      const values = inputs.map(({ type }, index) => graph.input(`input${index}`, type));
      graph.output("result", apply(graph, values));
      return { graph, values };
    });
    const plan = (index: number, addresses: ReadonlyMap<NumberArray, number>, base: number) => {
      const { inputs } = this.#contestants[index];
      const bindings = new Map(
        graphs[index].values.map((value, i) => [value, addresses.get(inputs[i].data)!]),
      );
      return planGraph(graphs[index].graph, { target, bindings, base });
    };
    const operands = new Map<NumberArray, ValueType>();
    for (const { inputs } of this.#contestants) {
      for (const { data, type } of inputs) operands.set(data, type);
    }
    // Planned once at made-up addresses to learn how much memory they take.
    const nowhere = new Map(Array.from(operands.keys(), (data) => [data, 64]));
    const dry = this.#contestants.map((_, index) => plan(index, nowhere, 64));
    const resultBytes = Math.max(...dry.map(planBytes));
    const arena = new Arena(
      operands.values().reduce((bytes, type) => bytes + byteLength(type) + 64, resultBytes) +
        dry.reduce((bytes, each) => bytes + programBytes(each) + 64, 4096),
    );
    const addresses = new Map<NumberArray, number>();
    for (const [data, type] of operands) {
      const address = arena.allocate(byteLength(type), "an operand");
      addresses.set(data, address);
      writeOperand(arena, type, address, data, this.#tile);
    }
    const base = arena.allocate(resultBytes, "the result");
    const executor = new InlineExecutor(this.#machine, 1, arena);
    const runs: Run[] = [];
    for (const [index, { inputs, readBytes, expected }] of this.#contestants.entries()) {
      const placed = plan(index, addresses, base);
      const program = await prepare(executor, placed);
      await executor.run(program);
      const { address, type } = placed.outputs.get("result")!;
      const resultBytes = byteLength(type);
      runs.push({
        call: () => executor.run(program),
        error: relativeError(arena.float32(address, resultBytes / 4), type, this.#tile, expected),
        movedBytes: (readBytes ?? inputs.reduce((bytes, { type }) => bytes + byteLength(type), 0)) +
          resultBytes,
      });
    }
    return runs;
  }
}

/** Every pattern at every sparsity. */
function variants(sparsities: readonly number[]): { pattern: SparsePattern; sparsity: number }[] {
  return (["unstructured", "4x1"] as const).flatMap((pattern) =>
    sparsities.map((sparsity) => ({ pattern, sparsity }))
  );
}

/** One operation on all inputs. */
function applying<A>(operation: Operation<A>, attributes: A): Apply {
  return (graph, inputs) => graph.apply(operation, attributes, inputs)[0];
}

/** Σ term(k), in float64. */
function sum(count: number, term: (k: number) => number): number {
  let total = 0;
  for (let k = 0; k < count; k++) total += term(k);
  return total;
}

/** All elements, from the operation's reference. */
function fromReference<A>(operation: Operation<A>, attributes: A, inputs: readonly Data[]): Sample[] {
  const inputTypes = inputs.map(({ type }) => type);
  const outputTypes = operation.infer(inputTypes, attributes);
  const [result] = operation.reference(inputs.map(({ data }) => data), {
    attributes,
    inputTypes,
    outputTypes,
  });
  return Array.from(result, (value, index) => ({ index, value }));
}

/** Largest difference from what is expected, over the largest value expected. */
function relativeError(
  found: Float32Array,
  { layout, shape: [features, columns] }: ValueType,
  tile: number,
  expected: readonly Sample[],
): number {
  let [largest, worst] = [0, 0];
  for (const { index, value } of expected) {
    const place = layout === "tiled"
      ? tiledIndex(Math.floor(index / columns), index % columns, features, tile)
      : index;
    largest = Math.max(largest, Math.abs(value));
    worst = Math.max(worst, Math.abs(found[place] - value));
  }
  return worst / largest;
}

/** Seconds of each one's fastest call, in turns, one call a turn. */
async function fastest(runs: readonly Run[], seconds: number): Promise<number[]> {
  const best = runs.map(() => Infinity);
  // Calls too short for the clock are repeated.
  const repeats = runs.map(() => 1);
  const end = performance.now() + seconds * 1000 * runs.length;
  for (let turn = 0; turn < 5 || performance.now() < end; turn++) {
    for (const [i, { call }] of runs.entries()) {
      const start = performance.now();
      for (let repeat = 0; repeat < repeats[i]; repeat++) await call();
      const passed = performance.now() - start;
      // The first turn warms up, and the second tells how long a call takes.
      if (turn === 1) repeats[i] = Math.max(1, Math.ceil(0.05 / Math.max(passed, 1e-4)));
      if (turn > 1) best[i] = Math.min(best[i], passed / 1000 / repeats[i]);
    }
    // Lets an engine that optimises code in the background swap it in.
    await new Promise((resolve) => setTimeout(resolve));
  }
  return best;
}

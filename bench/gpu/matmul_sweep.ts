/**
 * Every way to compute the products of BERT-base on this GPU, timed: what each reaches of the measured peak, which one is the
 * fastest, and which one `chooseMatmulConfiguration` takes. Some elements of every answer are checked.
 * @module
 */
import { errorMessage } from "../../src/core/errors.ts";
import { randomBits, randomKey } from "../../src/core/random.ts";
import { partialsBytes, productCalls } from "../../src/kernels/matmul/wgsl.ts";
import {
  chooseMatmulConfiguration,
  matmulCandidates,
  type MatmulChoice,
} from "../../src/kernels/matmul/wgsl_choice.ts";
import type { Product, ProductPrecision } from "../../src/kernels/matmul/wgsl_product.ts";
import type { BufferRange } from "../../src/kernels/shader.ts";
import type { GpuTimer } from "./timer.ts";

/** A product with what it is in a model. */
export interface NamedProduct {
  /** Such as `3072×768 weight gradient`. */
  readonly name: string;
  readonly product: Product;
}

/** One way to compute one product. Keys are part of the result's contract. */
export interface SweepRow {
  readonly product: string;
  readonly precision: ProductPrecision;
  readonly configuration: string;
  /** Parts that the depth is divided into. */
  readonly shares: number;
  /** Whether it is what the product takes in training. */
  readonly chosen: boolean;
  readonly best_ms: number;
  readonly median_ms: number;
  /** At the median, in 10¹² operations a second; 2 for a multiply-add. */
  readonly tflops: number;
  /** Of the measured fp32 peak: sums are fp32 in every precision. */
  readonly share_of_peak: number;
}

/** A candidate that did not run, or gave a wrong answer. */
export interface SweepFailure extends Pick<SweepRow, "product" | "configuration" | "shares"> {
  readonly message: string;
}

/** The result. */
export interface SweepResult {
  readonly rows: readonly SweepRow[];
  readonly failures: readonly SweepFailure[];
}

const plain = {
  aTransposed: false,
  bTransposed: false,
  bias: false,
  addend: false,
  activation: "none",
} as const;

/** The products of a step on `tokens` tokens: of each linear layer [outputs, inputs] one forward and two backward. */
export function trainingProducts(
  tokens: number,
  layers: readonly (readonly [outputs: number, inputs: number])[],
): NamedProduct[] {
  return layers.flatMap(([outputs, inputs]) => {
    const name = `${outputs}×${inputs}`;
    const forward = {
      ...plain,
      rows: tokens,
      columns: outputs,
      depth: inputs,
      bTransposed: true,
      bias: true,
    };
    const ofInput = { ...plain, rows: tokens, columns: inputs, depth: outputs };
    const ofWeight = { ...plain, rows: outputs, columns: inputs, depth: tokens, aTransposed: true };
    return [
      { name: `${name} forward`, product: forward },
      { name: `${name} input gradient`, product: ofInput },
      { name: `${name} weight gradient`, product: ofWeight },
    ];
  });
}

/** A product of square matrices. */
export function squareProduct(size: number): NamedProduct {
  return {
    name: `${size}×${size}×${size}`,
    product: { ...plain, rows: size, columns: size, depth: size, bTransposed: true },
  };
}

/** What to sweep. */
export interface SweepOptions {
  readonly products: readonly NamedProduct[];
  /** What shares are of. */
  readonly peakTflops: number;
  /** After so long what is left is told as failed. */
  readonly limitSeconds: number;
  readonly onProgress?: (activity: string) => void;
}

/** Times every candidate of every product, those in fp32 first. One that fails does not keep the others back. */
export async function sweepMatmul(timer: GpuTimer, options: SweepOptions): Promise<SweepResult> {
  const { products, peakTflops, limitSeconds, onProgress } = options;
  const end = performance.now() + 1000 * limitSeconds;
  const { target } = timer.gpu;
  const precisions: ProductPrecision[] = target.f16 ? ["fp32", "fp16"] : ["fp32"];
  const jobs = precisions.flatMap((precision) =>
    products.flatMap(({ name, product }) => {
      const chosen = chooseMatmulConfiguration(product, target, precision);
      return matmulCandidates(product, target, precision).map((choice) => ({
        name,
        product,
        choice,
        chosen: choice.configuration.name === chosen.configuration.name && choice.shares === chosen.shares,
      }));
    })
  );
  const rows: SweepRow[] = [];
  const failures: SweepFailure[] = [];
  const operands = new Operands(timer, jobs);
  let current = "";
  for (const { name, product, choice, chosen } of jobs) {
    const { configuration, shares } = choice;
    const activity = `${name} ${configuration.precision}`;
    if (activity !== current) onProgress?.(activity);
    current = activity;
    const who = { product: name, configuration: configuration.name, shares };
    try {
      if (performance.now() > end) throw new Error(`not timed: ${limitSeconds} s are over`);
      const { best_ms, median_ms } = await operands.time(product, choice);
      const tflops = 2 * product.rows * product.columns * product.depth / median_ms / 1e9;
      const { precision } = configuration;
      rows.push({
        ...who,
        precision,
        chosen,
        best_ms,
        median_ms,
        tflops,
        share_of_peak: tflops / peakTflops,
      });
    } catch (error) {
      failures.push({ ...who, message: errorMessage(error) });
    }
  }
  operands.destroy();
  return { rows, failures };
}

/** The fastest row of each product and precision beside the chosen one, and how much longer that takes. */
export function bestBesideChosen(rows: readonly SweepRow[]) {
  const groups = Map.groupBy(rows, ({ product, precision }) => `${product} ${precision}`);
  return [...groups.values()].map((group) => {
    const best = group.reduce((least, row) => row.median_ms < least.median_ms ? row : least);
    const chosen = group.find((row) => row.chosen);
    return { best, chosen, slowdown: chosen && chosen.median_ms / best.median_ms };
  });
}

/** Elements of each answer that are checked. */
const checkedElements = 32;

/** Buffers as large as the largest product needs, with the same numbers for all. */
class Operands {
  readonly #timer: GpuTimer;
  readonly #a: Float32Array<ArrayBuffer>;
  readonly #b: Float32Array<ArrayBuffer>;
  readonly #bias: Float32Array<ArrayBuffer>;
  /** A, B, the bias, the result, the partial sums. */
  readonly #buffers: readonly GPUBuffer[];

  constructor(
    timer: GpuTimer,
    jobs: readonly { readonly product: Product; readonly choice: MatmulChoice }[],
  ) {
    const most = (count: (product: Product) => number) =>
      Math.max(...jobs.map(({ product }) => count(product)));
    this.#timer = timer;
    this.#a = uniforms(most(({ rows, depth }) => rows * depth), "a");
    this.#b = uniforms(most(({ columns, depth }) => columns * depth), "b");
    this.#bias = uniforms(most(({ columns }) => columns), "bias");
    const partials = Math.max(4, ...jobs.flatMap(({ product, choice }) => partialsBytes(product, choice)));
    const arrays = [this.#a, this.#b, this.#bias];
    const sizes = [
      ...arrays.map(({ byteLength }) => byteLength),
      4 * most((p) => p.rows * p.columns),
      partials,
    ];
    this.#buffers = sizes.map((bytes) => timer.buffer(bytes));
    arrays.forEach((array, index) => timer.gpu.device.queue.writeBuffer(this.#buffers[index], 0, array));
  }

  /** Times one product done in one way. Throws when the answer is wrong. */
  async time(product: Product, choice: MatmulChoice) {
    const { rows, columns, depth, bias } = product;
    const range = (buffer: number, byteLength: number): BufferRange => ({
      buffer,
      byteOffset: 0,
      byteLength,
    });
    const [partials] = partialsBytes(product, choice).map((bytes) => range(4, bytes));
    const ranges = {
      operands: [
        range(0, 4 * rows * depth),
        range(1, 4 * columns * depth),
        ...(bias ? [range(2, 4 * columns)] : []),
      ],
      result: range(3, 4 * rows * columns),
      partials,
    };
    const calls = productCalls(product, choice, ranges, this.#timer.gpu.target);
    const recording = await this.#timer.load(choice.configuration.name, calls, this.#buffers);
    try {
      // What another candidate left must not pass for an answer.
      const wipe = this.#timer.gpu.device.createCommandEncoder();
      wipe.clearBuffer(this.#buffers[3], 0, 4 * rows * columns);
      this.#timer.gpu.device.queue.submit([wipe.finish()]);
      const time = await this.#timer.measure((encoder) => recording.encode(encoder));
      await this.#check(product, choice.configuration.precision);
      return time;
    } finally {
      recording.destroy();
    }
  }

  destroy(): void {
    for (const buffer of this.#buffers) buffer.destroy();
  }

  async #check(product: Product, precision: ProductPrecision): Promise<void> {
    const { rows, columns, depth, aTransposed, bTransposed, bias } = product;
    const last = rows * columns - 1;
    const indices = Array.from(
      { length: checkedElements },
      (_, check) => Math.round(last * check / (checkedElements - 1)),
    );
    const found = await this.#timer.read(this.#buffers[3], indices);
    const rounded = precision === "fp16" ? Math.f16round : Math.fround;
    indices.forEach((index, check) => {
      const [i, j] = [Math.floor(index / columns), index % columns];
      let sum = bias ? this.#bias[j] : 0;
      let magnitude = Math.abs(sum);
      for (let k = 0; k < depth; k++) {
        const term = rounded(this.#a[aTransposed ? k * rows + i : i * depth + k]) *
          rounded(this.#b[bTransposed ? j * depth + k : k * columns + j]);
        sum += term;
        magnitude += Math.abs(term);
      }
      // Half a unit in the last place for each addition.
      const bound = 6e-8 * (depth + 2) * magnitude;
      if (Math.abs(found[check] - sum) <= bound) return;
      throw new Error(`element [${i}, ${j}] is ${found[check]}, wanted ${sum} within ${bound}`);
    });
  }
}

/** Numbers in [−1, 1): timing zeros would draw less power than real numbers do. */
function uniforms(count: number, name: string): Float32Array<ArrayBuffer> {
  const key = randomKey(0, "gpu sweep", name);
  const values = new Float32Array(count);
  for (let index = 0; index < count; index++) values[index] = randomBits(key, index) / 2 ** 31 - 1;
  return values;
}

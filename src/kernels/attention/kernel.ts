/**
 * The forward attention kernel.
 * @module
 */
import type { Integer, VectorMachine } from "../../assemblers/vector_machine.ts";
import { emitExp } from "../emit_math.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import { emitLog } from "../softmax_cross_entropy/emit_log.ts";
import { AttentionEmitter, type AttentionShape, itemArguments } from "./emitter.ts";

const forwardArguments = {
  ...itemArguments,
  q: "pointer",
  k: "pointer",
  v: "pointer",
  context: "pointer",
  /** [heads, columns], written when training. */
  logSumExp: "pointer",
} as const;

const kernels = new Map<string, Kernel<typeof forwardArguments>>();

/** The name of a shape in kernel keys: `12x64_tile64_dropout`. */
export function shapeKey({ heads, headSize, tile, dropout }: AttentionShape): string {
  return `${heads}x${headSize}_tile${tile}${dropout ? "_dropout" : ""}`;
}

/**
 * context[d, i] = Σ_j P~[i, j] · v[d, j] for the queries i of the worker's items, P = softmax(q·k / √headSize).
 *
 * Shapes:   q, k, v, context tiled [heads · headSize, columns]; logSumExp [heads, columns]; offsets i32 [sequences + 1].
 * Layout:   a block of queries runs in the lanes, keys are broadcast; the scores of a block stay in scratch memory.
 * Requires: any headSize ≥ 1 and sequence length ≥ 0; context must not overlap the operands.
 * Numerics: f32, sums in the order of features and of keys; the largest score is subtracted before exp.
 *           NaN stays within its sequence and head.
 * Cost:     4 · headSize · length² operations an item, and length² exponentials.
 */
export function attentionKernel(shape: AttentionShape, training: boolean): Kernel<typeof forwardArguments> {
  const key = `attention_${shapeKey(shape)}${training ? "_training" : ""}`;
  let kernel = kernels.get(key);
  if (!kernel) {
    kernel = defineKernel({
      key,
      arguments: forwardArguments,
      emit: (vm, args) => emitForward(vm, args, shape, training),
    });
    kernels.set(key, kernel);
  }
  return kernel;
}

function emitForward(
  vm: VectorMachine,
  args: ArgumentReader<typeof forwardArguments>,
  shape: AttentionShape,
  training: boolean,
): void {
  const emitter = new AttentionEmitter(vm, args, shape);
  const scores = () => args.pointer("scores");

  /** Scores → exponentials with dropout; gives 1/sum. Written apart from the products for its own registers. */
  const softmax = (block: Integer, vectors: number) => {
    const rowBytes = vectors * vm.lanes * 4;
    const highest = emitter.vectors(vectors);
    const sums = emitter.vectors(vectors);
    const x = vm.vector();
    const row = scores();
    for (const high of highest) vm.constantF32(high, -Infinity);
    emitter.forEachRow(() => {
      highest.forEach((high, v) => {
        vm.load(x, row, v * vm.lanes * 4);
        vm.maximum(high, high, x);
      });
      vm.addInteger(row, row, rowBytes);
    });
    vm.free(row);

    for (const sum of sums) vm.constantF32(sum, 0);
    const indices = shape.dropout ? emitter.queryIndices(block, vectors) : [];
    const key = shape.dropout ? emitter.dropoutKey() : undefined;
    const scale = vm.vector();
    vm.constantF32(scale, 1 / Math.sqrt(shape.headSize));
    const next = scores();
    emitter.forEachRow(() => {
      sums.forEach((sum, v) => {
        vm.load(x, next, v * vm.lanes * 4);
        vm.subtract(x, x, highest[v]);
        vm.multiply(x, x, scale);
        emitExp(vm, x, x);
        vm.add(sum, sum, x);
        if (key) emitter.keep(x, indices[v], key, x);
        vm.store(next, v * vm.lanes * 4, x);
      });
      if (key) {
        vm.constantI32(x, 1);
        for (const index of indices) vm.addI32(index, index, x);
      }
      vm.addInteger(next, next, rowBytes);
    });
    vm.free(next, ...indices);
    if (key) vm.free(key.low, key.high);

    if (training) {
      highest.forEach((high, v) => {
        vm.multiply(high, high, scale);
        emitLog(vm, x, sums[v]);
        vm.add(high, high, x);
      });
      emitter.storeStatistic(() => args.pointer("logSumExp"), highest, block);
    }
    vm.free(scale, x, ...highest);
    const kept = shape.dropout ? args.float("keepScale") : vm.vector();
    if (!shape.dropout) vm.constantF32(kept, 1);
    for (const sum of sums) vm.divide(sum, kept, sum);
    vm.free(kept);
    return sums;
  };

  emitter.forEachItem(() => {
    emitter.forEachBlock((block, vectors) => {
      const operands = { lanes: () => args.pointer("q"), broadcast: () => args.pointer("k") };
      emitter.products(operands, scores, block, vectors);
      const factors = softmax(block, vectors);
      emitter.combination(
        { broadcast: () => args.pointer("v"), weights: scores },
        () => args.pointer("context"),
        block,
        vectors,
        factors,
      );
      vm.free(...factors);
    });
  });
}

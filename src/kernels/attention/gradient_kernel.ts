/**
 * The backward attention kernel.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { emitExp } from "../emit_math.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import { AttentionEmitter, type AttentionShape, itemArguments } from "./emitter.ts";
import { shapeKey } from "./kernel.ts";
import { dropoutKeys } from "./reference.ts";

const backwardArguments = {
  ...itemArguments,
  gradContext: "pointer",
  q: "pointer",
  k: "pointer",
  v: "pointer",
  context: "pointer",
  logSumExp: "pointer",
  gradQ: "pointer",
  gradK: "pointer",
  gradV: "pointer",
  /** Private scratch: a second array like `scores`, and one number per column. */
  gradScores: "pointer",
  delta: "pointer",
} as const;

const kernels = new Map<string, Kernel<typeof backwardArguments>>();

/**
 * Gradients of attention for the worker's items, with P recomputed from the saved log-sum-exp (Dao et al., arXiv
 * 2205.14135, §B.4): delta[i] = Σ_d dContext[d, i] · context[d, i], dP[i, j] = Σ_d dContext[d, i] · v[d, j],
 * dS = P ∘ (dP~ − delta), dQ = dS·k/√headSize, dK = dSᵀ·q/√headSize, dV = P~ᵀ·dContext.
 *
 * Shapes:   as in the forward kernel; gradQ, gradK, gradV tiled [heads · headSize, columns].
 * Layout:   two sweeps. Queries in the lanes give dQ, then keys in the lanes give dK and dV. Computing the scores twice
 *           costs 7 products where 5 would do, and saves a length² array and every sum over lanes.
 * Requires: results must not overlap the operands.
 * Numerics: f32, sums in the order of features and of columns. NaN stays within its sequence and head.
 * Cost:     14 · headSize · length² operations an item, and 2 · length² exponentials.
 */
export function attentionGradientKernel(shape: AttentionShape): Kernel<typeof backwardArguments> {
  const key = `attention_gradient_${shapeKey(shape)}`;
  let kernel = kernels.get(key);
  if (!kernel) {
    kernel = defineKernel({
      key,
      arguments: backwardArguments,
      emit: (vm, args) => emitBackward(vm, args, shape),
    });
    kernels.set(key, kernel);
  }
  return kernel;
}

/** What distinguishes the two sweeps for one block. */
interface Sweep {
  /** Numbers of the dropout bits of the first row, and how far the next row is. */
  readonly indices: readonly Vector[];
  readonly indexStep: number;
  /** Log-sum-exp and delta for vector v of the current row. */
  statistics(v: number): { readonly logSumExp: Vector; readonly delta: Vector };
  /** Called before the vectors of each row, and after. */
  beginRow(): void;
  endRow(): void;
}

function emitBackward(
  vm: VectorMachine,
  args: ArgumentReader<typeof backwardArguments>,
  shape: AttentionShape,
): void {
  const emitter = new AttentionEmitter(vm, args, shape);
  const pointer = {
    gradContext: () => args.pointer("gradContext"),
    q: () => args.pointer("q"),
    k: () => args.pointer("k"),
    v: () => args.pointer("v"),
    scores: () => args.pointer("scores"),
    gradScores: () => args.pointer("gradScores"),
    logSumExp: () => args.pointer("logSumExp"),
    delta: () => args.pointer("delta"),
  };
  const scale = 1 / Math.sqrt(shape.headSize);

  /** delta[i] = Σ_d dContext[d, i] · context[d, i]. Rows before and after the sequence's own are spare. */
  const storeDelta = (block: Integer, vectors: number) => {
    const gradContext = emitter.headAddress(pointer.gradContext, block);
    const context = emitter.headAddress(() => args.pointer("context"), block);
    const sums = emitter.vectors(vectors);
    const a = vm.vector();
    const b = vm.vector();
    for (const sum of sums) vm.constantF32(sum, 0);
    const features = vm.integer();
    vm.setInteger(features, shape.headSize);
    vm.repeat(features, () => {
      sums.forEach((sum, v) => {
        vm.load(a, gradContext, v * vm.lanes * 4);
        vm.load(b, context, v * vm.lanes * 4);
        vm.fma(sum, a, b);
      });
      vm.addInteger(gradContext, gradContext, shape.tile * 4);
      vm.addInteger(context, context, shape.tile * 4);
    });
    vm.free(features, gradContext, context, a, b);
    const delta = emitter.rowAddress(pointer.delta, block, 4);
    sums.forEach((sum, v) => vm.store(delta, v * vm.lanes * 4, sum));
    vm.free(delta, ...sums);
  };

  /** scores ← dS and gradScores ← P~, row by row, from q·k and dContext·v. */
  const elementwise = (vectors: number, sweep: Sweep) => {
    const key = shape.dropout ? emitter.dropoutKey() : undefined;
    const p = vm.vector();
    const dP = vm.vector();
    const scores = pointer.scores();
    const gradScores = pointer.gradScores();
    emitter.forEachRow(() => {
      sweep.beginRow();
      for (let v = 0; v < vectors; v++) {
        const { logSumExp, delta } = sweep.statistics(v);
        const offset = v * vm.lanes * 4;
        vm.load(p, scores, offset);
        vm.constantF32(dP, scale);
        vm.multiply(p, p, dP);
        vm.subtract(p, p, logSumExp);
        emitExp(vm, p, p);
        vm.load(dP, gradScores, offset);
        if (!key) {
          vm.store(gradScores, offset, p);
          vm.subtract(dP, dP, delta);
        } else {
          // One decision for both P~ and dP~: the factor that dropout multiplies by.
          const factor = args.float("keepScale");
          emitter.keep(factor, sweep.indices[v], key, factor);
          vm.multiply(dP, dP, factor);
          vm.multiply(factor, factor, p);
          vm.store(gradScores, offset, factor);
          vm.free(factor);
          vm.subtract(dP, dP, delta);
        }
        vm.multiply(p, p, dP);
        vm.store(scores, offset, p);
      }
      sweep.endRow();
      if (key) {
        vm.constantI32(p, sweep.indexStep);
        for (const index of sweep.indices) vm.addI32(index, index, p);
      }
      vm.addInteger(scores, scores, vectors * vm.lanes * 4);
      vm.addInteger(gradScores, gradScores, vectors * vm.lanes * 4);
    });
    vm.free(p, dP, scores, gradScores);
    if (key) vm.free(key.low, key.high);
  };

  const queriesInLanes = (block: Integer, vectors: number) => {
    storeDelta(block, vectors);
    emitter.products({ lanes: pointer.q, broadcast: pointer.k }, pointer.scores, block, vectors);
    emitter.products(
      { lanes: pointer.gradContext, broadcast: pointer.v },
      pointer.gradScores,
      block,
      vectors,
    );
    const indices = shape.dropout ? emitter.queryIndices(block, vectors) : [];
    const logSumExp = emitter.vectors(vectors);
    const delta = emitter.vectors(vectors);
    const address = emitter.statisticAddress(pointer.logSumExp, block);
    logSumExp.forEach((value, v) => vm.load(value, address, v * vm.lanes * 4));
    vm.free(address);
    const deltas = emitter.rowAddress(pointer.delta, block, 4);
    delta.forEach((value, v) => vm.load(value, deltas, v * vm.lanes * 4));
    vm.free(deltas);
    elementwise(vectors, {
      indices,
      indexStep: 1,
      statistics: (v) => ({ logSumExp: logSumExp[v], delta: delta[v] }),
      beginRow() {},
      endRow() {},
    });
    vm.free(...indices, ...logSumExp, ...delta);
    combine(block, vectors, pointer.k, pointer.scores, () => args.pointer("gradQ"), scale);
  };

  const keysInLanes = (block: Integer, vectors: number) => {
    emitter.products({ lanes: pointer.k, broadcast: pointer.q }, pointer.scores, block, vectors);
    emitter.products(
      { lanes: pointer.v, broadcast: pointer.gradContext },
      pointer.gradScores,
      block,
      vectors,
    );
    const indices = shape.dropout ? emitter.keyIndices(block, vectors) : [];
    const logSumExp = vm.vector();
    const delta = vm.vector();
    const logSumExps = emitter.statisticAddress(pointer.logSumExp);
    const deltas = pointer.delta();
    elementwise(vectors, {
      indices,
      indexStep: shape.heads * dropoutKeys,
      statistics: () => ({ logSumExp, delta }),
      beginRow() {
        vm.broadcast(logSumExp, logSumExps, 0);
        vm.broadcast(delta, deltas, 0);
      },
      endRow() {
        vm.addInteger(logSumExps, logSumExps, 4);
        vm.addInteger(deltas, deltas, 4);
      },
    });
    vm.free(...indices, logSumExp, delta, logSumExps, deltas);
    combine(block, vectors, pointer.q, pointer.scores, () => args.pointer("gradK"), scale);
    combine(block, vectors, pointer.gradContext, pointer.gradScores, () => args.pointer("gradV"), 1);
  };

  const combine = (
    block: Integer,
    vectors: number,
    broadcast: () => Integer,
    weights: () => Integer,
    out: () => Integer,
    factor: number,
  ) => {
    const factors = factor === 1 ? undefined : emitter.vectors(vectors);
    for (const register of factors ?? []) vm.constantF32(register, factor);
    emitter.combination({ broadcast, weights }, out, block, vectors, factors);
    vm.free(...factors ?? []);
  };

  emitter.forEachItem(() => {
    // Every delta of the sequence is known before the second sweep broadcasts them.
    emitter.forEachBlock(queriesInLanes);
    emitter.forEachBlock(keysInLanes);
  });
}

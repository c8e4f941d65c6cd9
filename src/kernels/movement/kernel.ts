/**
 * The gradient of movement pruning's scores (Sanh et al., arXiv 2005.07683): one pass over weights and their gradients.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { emitTanh } from "../emit_math.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";

const movementArguments = {
  gradients: "pointer",
  weights: "pointer",
  dormant: "pointer",
  target: "pointer",
  count: "integer",
} as const;

/** target[i] = gradients[i] · (weights[i] + dormant[i]) for i < count. */
export const movementKernel: Kernel<typeof movementArguments> = defineKernel({
  key: "movement_f32",
  arguments: movementArguments,
  emit(vm, args) {
    emitPass(vm, args, [], (gradient) => gradient);
  },
});

const penalizedArguments = {
  ...movementArguments,
  scores: "pointer",
  /** An f32. */
  penalty: "pointer",
  share: "float",
} as const;

/**
 * The same with the gradient of a penalty on the scores' sigmoids σ: penalty · share · σ(s) · (1 − σ(s)) is added.
 *
 * Numerics: the derivative is ¼ · (1 − tanh²(s / 2)), absolute error below 2e-7.
 */
export const penalizedMovementKernel: Kernel<typeof penalizedArguments> = defineKernel({
  key: "movement_penalized_f32",
  arguments: penalizedArguments,
  emit(vm, args) {
    const factor = args.float("share");
    const penalty = args.pointer("penalty");
    const [value, constant] = [vm.vector(), vm.vector()];
    vm.broadcast(value, penalty, 0);
    vm.multiply(factor, factor, value);
    vm.constantF32(constant, 0.25);
    vm.multiply(factor, factor, constant);
    vm.free(penalty, value, constant);
    emitPass(vm, args, [args.pointer("scores")], (gradient, [score]) => {
      const half = vm.vector();
      vm.constantF32(half, 0.5);
      vm.multiply(score, score, half);
      emitTanh(vm, score, score);
      // factor · (1 − t²) + gradient
      vm.constantF32(half, 1);
      vm.fmaNegated(half, score, score);
      vm.fma(gradient, factor, half);
      vm.free(half);
      return gradient;
    });
    vm.free(factor);
  },
});

/** Passes over the arrays; `finish` makes the result of g · (w + d) and a vector of each further array. */
function emitPass(
  vm: VectorMachine,
  args: Pick<ArgumentReader<typeof movementArguments>, "pointer" | "integer">,
  further: readonly Integer[],
  finish: (gradient: Vector, further: readonly Vector[]) => Vector,
): void {
  const [gradients, weights, dormant, target] = (["gradients", "weights", "dormant", "target"] as const)
    .map((name) => args.pointer(name));
  const count = args.integer("count");
  const sources = [gradients, weights, dormant, ...further];
  const values = sources.map(() => vm.vector());
  const pass = (left?: Integer) => {
    sources.forEach((source, index) => {
      if (left) vm.loadFirst(values[index], source, 0, left);
      else vm.load(values[index], source, 0);
    });
    const [gradient, weight, sleeping, ...others] = values;
    vm.add(weight, weight, sleeping);
    vm.multiply(gradient, gradient, weight);
    const result = finish(gradient, others);
    if (left) vm.storeFirst(target, 0, result, left);
    else vm.store(target, 0, result);
  };
  const vectors = vm.integer();
  vm.shiftRightInteger(vectors, count, Math.log2(vm.lanes));
  vm.repeat(vectors, () => {
    pass();
    for (const pointer of [...sources, target]) vm.addInteger(pointer, pointer, 4 * vm.lanes);
  });
  vm.andInteger(count, count, vm.lanes - 1);
  vm.when(count, "greater", 0, () => pass(count));
  vm.free(...sources, target, count, vectors, ...values);
}

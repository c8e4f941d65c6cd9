/**
 * RMSprop, with a momentum or without, centred or not.
 * @module
 */
import { emitFlush } from "./emit.ts";
import { flushTiny, forEachKept } from "./reference.ts";
import type { GroupStep, RmspropSettings, UpdateRule } from "./rule.ts";
import { emitScalar, momentumOf, refuseMomentum, scalarBlock } from "./scalars.ts";

/** The scalars block. */
const words = [
  "learningRate",
  "weightDecay",
  "alpha",
  "oneMinusAlpha",
  "epsilon",
  "momentum",
] as const;

/**
 * A step, on parameters with gradients g:
 *
 *     g = g + decay · w
 *     v = α v + (1 − α) g²
 *     e = e + (1 − α)(g − e)           centred only
 *     d = g / (√v + ε)                 centred: √(v − e²)
 *     b = μ b + d                      with a momentum only
 *     w = w − lr · b                   without one: w − lr · d
 *
 * No average is corrected for its beginning, and ε stands outside the root: as in PyTorch, unlike TensorFlow. v − e² is
 * a variance: where rounding takes it below zero it counts as zero, and PyTorch has NaN.
 */
export function rmspropRule({ alpha, epsilon, momentum, centered }: RmspropSettings): UpdateRule {
  const buffered = momentum > 0;
  const momentumNow = (group: GroupStep) => {
    if (!buffered) refuseMomentum("rmsprop", group);
    return momentumOf(group, momentum);
  };
  const states = [
    "squareAverage",
    ...(centered ? ["gradientAverage"] : []),
    ...(buffered ? ["momentum"] : []),
  ];
  /** The averages and the buffer, of all that a rule may have. */
  const parts = <T>(values: readonly T[]) => ({
    square: values[0],
    average: values[states.indexOf("gradientAverage")],
    buffer: values[states.indexOf("momentum")],
  });
  return {
    key: ["rmsprop", ...(centered ? ["centered"] : []), ...(buffered ? ["momentum"] : [])].join("_"),
    states,
    scalars: words,
    lazy: false,
    takesMomentum: buffered,

    scalarsOf(group) {
      const { learningRate, weightDecay } = group;
      return scalarBlock(words, {
        learningRate,
        weightDecay,
        alpha,
        oneMinusAlpha: 1 - alpha,
        epsilon,
        momentum: momentumNow(group),
      });
    },

    reference(state, gradients, group, _step, clip = 1, mask) {
      const { weights } = state;
      const { square, average, buffer } = parts(state.states);
      const { learningRate, weightDecay } = group;
      const kept = momentumNow(group);
      forEachKept(state, gradients, clip, mask, (i, gradient) => {
        const g = gradient + weightDecay * weights[i];
        square[i] = flushTiny(alpha * square[i] + (1 - alpha) * g * g);
        if (centered) average[i] = flushTiny(average[i] + (1 - alpha) * (g - average[i]));
        const variance = centered ? Math.max(0, square[i] - average[i] ** 2) : square[i];
        const change = g / (Math.sqrt(variance) + epsilon);
        if (buffered) buffer[i] = flushTiny(kept * buffer[i] + change);
        weights[i] -= learningRate * (buffered ? buffer[i] : change);
      });
    },

    emit(vm, { w, states }, gradient, scalars, constants) {
      const { square, average, buffer } = parts(states);
      const { zero, smallest } = constants;
      const [scalar, root] = [vm.vector(), vm.vector()];
      const read = (word: (typeof words)[number]) => emitScalar(vm, scalar, scalars, words, word);
      vm.fma(gradient, w, read("weightDecay"));
      vm.multiply(square, square, read("alpha"));
      vm.multiply(root, gradient, gradient);
      vm.fma(square, root, read("oneMinusAlpha"));
      vm.selectLess(square, square, smallest, zero, square);
      if (centered) {
        vm.subtract(root, gradient, average);
        vm.fma(average, root, read("oneMinusAlpha"));
        emitFlush(vm, average, root, constants);
        vm.move(root, square);
        vm.fmaNegated(root, average, average);
        vm.selectLess(root, root, zero, zero, root);
        vm.squareRoot(root, root);
      } else vm.squareRoot(root, square);
      vm.add(root, root, read("epsilon"));
      vm.divide(gradient, gradient, root);
      if (buffered) {
        vm.multiply(buffer, buffer, read("momentum"));
        vm.add(buffer, buffer, gradient);
        emitFlush(vm, buffer, root, constants);
      }
      vm.fmaNegated(w, buffered ? buffer : gradient, read("learningRate"));
      vm.free(scalar, root);
    },

    wgsl: [
      "g = fma(w, V(scalars.weightDecay), g);",
      "squareAverage = flush(fma(g * g, V(scalars.oneMinusAlpha), squareAverage * scalars.alpha));",
      "var variance = squareAverage;",
      ...(centered
        ? [
          "gradientAverage = flush(fma(g - gradientAverage, V(scalars.oneMinusAlpha), gradientAverage));",
          "variance = fma(-gradientAverage, gradientAverage, variance);",
          "variance = select(variance, V(0), variance < V(0));",
        ]
        : []),
      "let change = g / (sqrt(variance) + V(scalars.epsilon));",
      ...(buffered ? ["momentum = flush(momentum * scalars.momentum + change);"] : []),
      `w = fma(-${buffered ? "momentum" : "change"}, V(scalars.learningRate), w);`,
    ].join("\n"),
  };
}

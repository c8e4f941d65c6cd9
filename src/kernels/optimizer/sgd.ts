/**
 * Stochastic gradient descent, with a momentum or without.
 * @module
 */
import { emitFlush } from "./emit.ts";
import { flushTiny, forEachKept } from "./reference.ts";
import type { GroupStep, SgdSettings, UpdateRule } from "./rule.ts";
import { emitScalar, momentumOf, refuseMomentum, scalarBlock } from "./scalars.ts";

/** The scalars block; `gradientShare` is what the buffer takes of a gradient. */
const words = ["learningRate", "weightDecay", "momentum", "gradientShare"] as const;

/**
 * A step, on parameters with gradients g:
 *
 *     g = g + decay · w
 *     b = μ b + (1 − dampening) g      in the first step b = g
 *     w = w − lr · b                   Nesterov: w = w − lr (g + μ b)
 *
 * Without a momentum there is no buffer, and g takes its place. The learning rate is not in the buffer: changing it
 * scales what earlier steps have left there, as in PyTorch.
 */
export function sgdRule({ momentum, dampening, nesterov }: SgdSettings): UpdateRule {
  const buffered = momentum > 0;
  const momentumNow = (group: GroupStep) => {
    if (!buffered) refuseMomentum("sgd", group);
    return momentumOf(group, momentum);
  };
  // The buffer of the first step is the whole gradient: it was zero before.
  const shareIn = (step: number) => step === 1 ? 1 : 1 - dampening;
  return {
    key: nesterov ? "sgd_nesterov" : buffered ? "sgd_momentum" : "sgd",
    states: buffered ? ["momentum"] : [],
    scalars: words,
    lazy: false,
    takesMomentum: buffered,

    scalarsOf(group, step) {
      const { learningRate, weightDecay } = group;
      return scalarBlock(words, {
        learningRate,
        weightDecay,
        momentum: momentumNow(group),
        gradientShare: shareIn(step),
      });
    },

    reference(state, gradients, group, step, clip = 1, mask) {
      const { weights, states: [buffer] } = state;
      const { learningRate, weightDecay } = group;
      const [kept, share] = [momentumNow(group), shareIn(step)];
      forEachKept(state, gradients, clip, mask, (i, gradient) => {
        const g = gradient + weightDecay * weights[i];
        if (buffered) buffer[i] = flushTiny(kept * buffer[i] + share * g);
        const change = nesterov ? g + kept * buffer[i] : buffered ? buffer[i] : g;
        weights[i] -= learningRate * change;
      });
    },

    emit(vm, { w, states: [buffer] }, gradient, scalars, constants) {
      const scalar = vm.vector();
      const read = (word: (typeof words)[number]) => emitScalar(vm, scalar, scalars, words, word);
      vm.fma(gradient, w, read("weightDecay"));
      if (buffered) {
        vm.multiply(buffer, buffer, read("momentum"));
        vm.fma(buffer, gradient, read("gradientShare"));
        emitFlush(vm, buffer, scalar, constants);
      }
      if (nesterov) vm.fma(gradient, buffer, read("momentum"));
      vm.fmaNegated(w, buffered && !nesterov ? buffer : gradient, read("learningRate"));
      vm.free(scalar);
    },

    wgsl: [
      "g = fma(w, V(scalars.weightDecay), g);",
      ...(buffered
        ? ["momentum = flush(fma(g, V(scalars.gradientShare), momentum * scalars.momentum));"]
        : []),
      ...(nesterov ? ["g = fma(momentum, V(scalars.momentum), g);"] : []),
      `w = fma(-${buffered && !nesterov ? "momentum" : "g"}, V(scalars.learningRate), w);`,
    ].join("\n"),
  };
}

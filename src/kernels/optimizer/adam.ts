/**
 * Adam and AdamW. They differ in what the decay acts on: in Adam the gradient, and with it the moments; in AdamW the
 * weight alone.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { emitFlush } from "./emit.ts";
import { flushTiny, forEachKept } from "./reference.ts";
import type { AdamSettings, Constants, Element, UpdateRule } from "./rule.ts";
import { emitScalar, momentumOf, scalarBlock } from "./scalars.ts";

/** The scalars block of both. */
export const adamScalars = [
  /** AdamW: what a weight is multiplied by. Adam: the share of a weight that its gradient gets. */
  "decay",
  "stepSize",
  "inverseRootCorrection2",
  "oneMinusBeta1",
  "beta2",
  "oneMinusBeta2",
  "epsilon",
] as const;

/** What is compiled in. */
type AdamForm = Pick<AdamSettings, "name" | "amsgrad">;

/**
 * A step of AdamW, on parameters with gradients g:
 *
 *     w = w (1 − lr · decay)
 *     m = m + (1 − β₁)(g − m)
 *     v = β₂ v + (1 − β₂) g²
 *     w = w − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
 *
 * Adam leaves the first line out and begins with g = g + decay · w instead. With `amsgrad` the root is of the largest v
 * so far, before correction. A momentum in place of β₁ corrects with its own power, as PyTorch does.
 */
export function adamRule(settings: AdamSettings): UpdateRule {
  const { name, beta1, beta2, epsilon, amsgrad } = settings;
  const decoupled = name === "adamw";
  return {
    key: amsgrad ? `${name}_amsgrad` : name,
    states: ["firstMoment", "secondMoment", ...(amsgrad ? ["largestSecondMoment"] : [])],
    scalars: adamScalars,
    lazy: decoupled && !amsgrad,
    takesMomentum: true,

    scalarsOf(group, step) {
      const { learningRate, weightDecay } = group;
      const beta1Now = momentumOf(group, beta1);
      return scalarBlock(adamScalars, {
        decay: decoupled ? 1 - learningRate * weightDecay : weightDecay,
        stepSize: learningRate / (1 - beta1Now ** step),
        inverseRootCorrection2: 1 / Math.sqrt(1 - beta2 ** step),
        oneMinusBeta1: 1 - beta1Now,
        beta2,
        oneMinusBeta2: 1 - beta2,
        epsilon,
      });
    },

    reference(state, gradients, group, step, clip = 1, mask) {
      const { weights, states: [first, second, largest] } = state;
      const { learningRate, weightDecay } = group;
      const beta1Now = momentumOf(group, beta1);
      const correction1 = 1 - beta1Now ** step;
      const correction2 = 1 - beta2 ** step;
      forEachKept(state, gradients, clip, mask, (i, gradient) => {
        const g = decoupled ? gradient : gradient + weightDecay * weights[i];
        const w = decoupled ? weights[i] * (1 - learningRate * weightDecay) : weights[i];
        first[i] = flushTiny(first[i] + (1 - beta1Now) * (g - first[i]));
        second[i] = flushTiny(beta2 * second[i] + (1 - beta2) * g * g);
        if (amsgrad && largest[i] < second[i]) largest[i] = second[i];
        const root = Math.sqrt((amsgrad ? largest : second)[i]);
        weights[i] = w - learningRate / correction1 * first[i] / (root / Math.sqrt(correction2) + epsilon);
      });
    },

    emit(vm, element, gradient, scalars, constants) {
      emitAdam(vm, settings, element, gradient, scalars, constants);
    },

    wgsl: [
      name === "adam" ? "g = fma(w, V(scalars.decay), g);" : "w = w * scalars.decay;",
      "firstMoment = flush(fma(g - firstMoment, V(scalars.oneMinusBeta1), firstMoment));",
      "secondMoment = flush(fma(g * g, V(scalars.oneMinusBeta2), secondMoment * scalars.beta2));",
      ...(amsgrad
        ? [
          "largestSecondMoment = select(largestSecondMoment, secondMoment, largestSecondMoment < secondMoment);",
        ]
        : []),
      `let root = sqrt(${amsgrad ? "largestSecondMoment" : "secondMoment"});`,
      "let change = firstMoment / (root * scalars.inverseRootCorrection2 + V(scalars.epsilon));",
      "w = fma(-change, V(scalars.stepSize), w);",
    ].join("\n"),
  };
}

/**
 * One step of one vector. Without `gradient`, that of AdamW with a gradient of zero, to the bit; what a zero changes in
 * no bit is left out: v ≥ 0, so v + (1 − β₂) · 0² is v.
 */
export function emitAdam(
  vm: VectorMachine,
  { name, amsgrad }: AdamForm,
  { w, states: [m, v, largest] }: Element,
  gradient: Vector | undefined,
  scalars: Integer,
  constants: Constants,
): void {
  const { zero, smallest } = constants;
  const [scalar, other] = [vm.vector(), vm.vector()];
  const read = (word: (typeof adamScalars)[number]) => emitScalar(vm, scalar, scalars, adamScalars, word);
  if (gradient && name === "adam") vm.fma(gradient, w, read("decay"));
  vm.subtract(other, gradient ?? zero, m);
  vm.fma(m, other, read("oneMinusBeta1"));
  emitFlush(vm, m, other, constants);

  vm.multiply(v, v, read("beta2"));
  if (gradient) {
    vm.multiply(gradient, gradient, gradient);
    vm.fma(v, gradient, read("oneMinusBeta2"));
  }
  vm.selectLess(v, v, smallest, zero, v);
  if (amsgrad) vm.selectLess(largest, largest, v, v, largest);

  vm.squareRoot(other, amsgrad ? largest : v);
  vm.multiply(other, other, read("inverseRootCorrection2"));
  vm.add(other, other, read("epsilon"));
  vm.divide(other, m, other);
  if (name === "adamw") vm.multiply(w, w, read("decay"));
  vm.fmaNegated(w, other, read("stepSize"));
  vm.free(scalar, other);
}

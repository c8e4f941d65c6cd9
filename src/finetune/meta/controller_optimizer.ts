/**
 * What the encoder of MetaAdamW learns with: plain gradient descent, or Adam, on one flat array in float64.
 * @module
 */
import type { MetaOptions } from "./options.ts";

const [beta1, beta2, epsilon] = [0.9, 0.999, 1e-8];

/** Descends on a flat array of parameters. */
export class ControllerOptimizer {
  readonly #options: Pick<MetaOptions, "optimizer" | "learningRate">;
  /** Updates made. */
  updates = 0;
  /** Adam's; empty for gradient descent. */
  readonly firstMoment: Float64Array;
  readonly secondMoment: Float64Array;

  constructor(options: Pick<MetaOptions, "optimizer" | "learningRate">, parameterCount: number) {
    this.#options = options;
    const moments = options.optimizer === "adam" ? parameterCount : 0;
    this.firstMoment = new Float64Array(moments);
    this.secondMoment = new Float64Array(moments);
  }

  /** One update: w −= lr · g, or Adam's (Kingma and Ba, arXiv 1412.6980) with β 0.9 and 0.999, ε 1e-8. */
  update(parameters: Float64Array, gradients: Float64Array): void {
    const { optimizer, learningRate } = this.#options;
    this.updates++;
    if (optimizer === "sgd") {
      for (let i = 0; i < parameters.length; i++) parameters[i] -= learningRate * gradients[i];
      return;
    }
    const correction1 = 1 - beta1 ** this.updates;
    const correction2 = 1 - beta2 ** this.updates;
    for (let i = 0; i < parameters.length; i++) {
      const g = gradients[i];
      const m = this.firstMoment[i] += (1 - beta1) * (g - this.firstMoment[i]);
      const v = this.secondMoment[i] += (1 - beta2) * (g * g - this.secondMoment[i]);
      parameters[i] -= learningRate * (m / correction1) / (Math.sqrt(v / correction2) + epsilon);
    }
  }
}

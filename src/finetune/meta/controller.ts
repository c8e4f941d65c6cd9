/**
 * The controller of MetaAdamW: statistics of the groups in, factors out; and how it learns from the factors' gradients.
 *
 *     features ─► pad, gate ─► encoder ─► α, β = 1 + range · (sigmoid(raw) − ½), λ₁, λ₂ = sigmoid(raw)
 *
 * It knows no trainer. What it learns with the encoder: gates, the groups' embeddings (`enhanced`), and the uncertainties
 * of the meta-loss; all lie in one flat array.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { randomKey, RandomStream } from "../../core/random.ts";
import { ControllerOptimizer } from "./controller_optimizer.ts";
import { encoderOutputs, type EncoderTape, GroupEncoder } from "./encoder.ts";
import { featureCount, groupFeatures, type GroupTensor } from "./features.ts";
import { sigmoid, uncertaintyBound } from "./objective.ts";
import { type MetaOptions, metaTerms } from "./options.ts";

/** Numbers for each group; or their gradients. */
export interface Factors {
  /** On the learning rate, and with it on the decay. */
  readonly alpha: Float64Array;
  /** On the weight decay. */
  readonly beta: Float64Array;
  /** Weight of the squared gradient in the gradient term. */
  readonly lambda1: Float64Array;
  /** Weight of the cosine. */
  readonly lambda2: Float64Array;
}

/** A controller as it is written down. JSON keeps every number of it. */
export interface ControllerState {
  readonly groups: readonly string[];
  readonly parameters: readonly number[];
  readonly updates: number;
  readonly firstMoment: readonly number[];
  readonly secondMoment: readonly number[];
}

/** Columns of a group's embedding in `enhanced`. */
const embeddingWidth = 4;

/** What the backward pass needs. */
interface ControllerTape {
  /** Before gates. */
  readonly tokens: Float64Array;
  readonly encoder: EncoderTape;
}

/** Gives factors, and learns. */
export class MetaController {
  readonly groups: readonly string[];
  readonly encoder: GroupEncoder;
  /** Encoder, gates, embeddings, uncertainties. */
  readonly parameters: Float64Array;
  readonly #options: MetaOptions;
  readonly #optimizer: ControllerOptimizer;
  /** Columns of a token that mean something: features, then the embedding. */
  readonly #columns: number;
  readonly #features: number;
  #tape: ControllerTape | undefined;

  /** Draws all parameters from the seed. */
  constructor(groups: readonly string[], options: MetaOptions, seed: number) {
    this.groups = groups;
    this.#options = options;
    this.#features = featureCount(options);
    this.#columns = this.#features + (hasEmbeddings(options) ? embeddingWidth : 0);
    const { heads, layers, feedForward } = options;
    const width = heads * Math.ceil(Math.max(options.width, this.#columns) / heads);
    this.encoder = new GroupEncoder({ width, heads, layers, feedForward });
    const embeddings = hasEmbeddings(options) ? groups.length * embeddingWidth : 0;
    const gates = options.gating ? this.#columns : 0;
    this.parameters = new Float64Array(
      this.encoder.parameterCount + gates + embeddings + metaTerms.length,
    );
    this.#optimizer = new ControllerOptimizer(options, this.parameters.length);
    const parts = this.#parts(this.parameters);
    this.encoder.initialise(parts.encoder, seed, options.zeroOutput);
    parts.gates.fill(1);
    const stream = new RandomStream(randomKey(seed, "meta embeddings"));
    for (let i = 0; i < embeddings; i++) parts.embeddings[i] = 0.1 * stream.normal();
  }

  /** ln σ² of each term of the meta-loss, in the order of `metaTerms`. */
  get uncertainties(): Float64Array {
    return this.#parts(this.parameters).uncertainties;
  }

  /** Meta-updates made. */
  get updates(): number {
    return this.#optimizer.updates;
  }

  /** The factors for what was measured of each group's tensors, at a time in [0, 1]. `learn` is about the last call. */
  factors(groups: readonly (readonly GroupTensor[])[], time: number): Factors {
    const { fixed, alphaRange, betaRange, lambda } = this.#options;
    const count = this.groups.length;
    if (fixed) return constantFactors(count, fixed.alpha, fixed.beta);
    const tokens = this.#tokens(groupFeatures(groups, this.#options, time).values);
    const { encoder: parameters } = this.#parts(this.parameters);
    const encoder = this.encoder.forward(parameters, this.#gated(tokens));
    this.#tape = { tokens, encoder };
    const column = (output: number, of: (raw: number) => number) =>
      Float64Array.from({ length: count }, (_, g) => of(encoder.raw[g * encoderOutputs + output]));
    const weight = (raw: number) => lambda ?? sigmoid(raw);
    return {
      alpha: column(0, (raw) => 1 + alphaRange * (sigmoid(raw) - 0.5)),
      beta: column(1, (raw) => 1 + betaRange * (sigmoid(raw) - 0.5)),
      lambda1: column(2, weight),
      lambda2: column(3, weight),
    };
  }

  /** The gradient of all parameters for a meta-loss with these gradients, penalties included. */
  gradient(gradFactors: Factors, gradUncertainties: readonly number[]): Float64Array {
    if (!this.#tape) throw new Error("Cannot learn: no factors were asked for");
    const { alphaRange, betaRange, lambda } = this.#options;
    const { tokens, encoder: tape } = this.#tape;
    const ranges = [alphaRange, betaRange, lambda === undefined ? 1 : 0, lambda === undefined ? 1 : 0];
    const columns = [gradFactors.alpha, gradFactors.beta, gradFactors.lambda1, gradFactors.lambda2];
    const gradRaw = tape.raw.map((raw, i) => {
      const output = i % encoderOutputs;
      const group = Math.floor(i / encoderOutputs);
      return columns[output][group] * ranges[output] * sigmoid(raw) * (1 - sigmoid(raw));
    });
    const gradients = new Float64Array(this.parameters.length);
    const [values, parts] = [this.#parts(this.parameters), this.#parts(gradients)];
    const gradTokens = this.encoder.backward(values.encoder, tape, gradRaw, parts.encoder);
    const { width } = this.encoder.shape;
    this.groups.forEach((_, g) => {
      for (let column = 0; column < this.#columns; column++) {
        const at = g * width + column;
        const gate = this.#options.gating ? sigmoid(values.gates[column]) : 1;
        if (this.#options.gating) {
          parts.gates[column] += gradTokens[at] * tokens[at] * gate * (1 - gate);
        }
        if (column >= this.#features) {
          parts.embeddings[g * embeddingWidth + column - this.#features] += gradTokens[at] * gate;
        }
      }
    });
    parts.uncertainties.set(gradUncertainties);
    this.#addPenalties(values, parts);
    return gradients;
  }

  /** One meta-update. False, and nothing is changed, if any gradient is not finite. The next factors are new ones. */
  learn(gradFactors: Factors, gradUncertainties: readonly number[]): boolean {
    if (!this.#options.learns || this.#options.fixed) {
      throw new Error("Cannot learn: this controller is a control");
    }
    const gradients = this.gradient(gradFactors, gradUncertainties);
    if (!gradients.every(Number.isFinite)) return false;
    this.#optimizer.update(this.parameters, gradients);
    if (this.#options.boundedUncertainty) {
      const { uncertainties } = this;
      uncertainties.forEach((s, i) => {
        uncertainties[i] = Math.min(uncertaintyBound, Math.max(-uncertaintyBound, s));
      });
    }
    this.#tape = undefined;
    return true;
  }

  /** All that learning goes on from. */
  state(): ControllerState {
    return {
      groups: [...this.groups],
      parameters: [...this.parameters],
      updates: this.#optimizer.updates,
      firstMoment: [...this.#optimizer.firstMoment],
      secondMoment: [...this.#optimizer.secondMoment],
    };
  }

  /** Goes on from there. Throws `InputError` for a state of other groups or sizes. */
  restore(state: ControllerState): void {
    const wanted = this.groups.join(", ");
    const found = state.groups?.join(", ");
    if (found !== wanted) {
      throw new InputError(`MetaAdamW's saved groups are ${found}: wanted ${wanted}`);
    }
    const optimizer = this.#optimizer;
    const { parameters } = this;
    const { firstMoment, secondMoment } = optimizer;
    const arrays = Object.entries({ parameters, firstMoment, secondMoment });
    for (const [name, array] of arrays) {
      const saved = state[name as "parameters"];
      if (saved?.length !== array.length || !saved.every(Number.isFinite)) {
        throw new InputError(
          `MetaAdamW's saved ${name} are ${saved?.length} numbers: wanted ${array.length} finite ones`,
        );
      }
    }
    for (const [name, array] of arrays) array.set(state[name as "parameters"]);
    optimizer.updates = state.updates;
    this.#tape = undefined;
  }

  /** Features with embeddings behind them, padded to the width. */
  #tokens(features: Float64Array): Float64Array {
    const { width } = this.encoder.shape;
    const { embeddings } = this.#parts(this.parameters);
    const tokens = new Float64Array(this.groups.length * width);
    const embedded = this.#columns - this.#features;
    this.groups.forEach((_, g) => {
      tokens.set(features.subarray(g * this.#features, (g + 1) * this.#features), g * width);
      tokens.set(embeddings.subarray(g * embedded, (g + 1) * embedded), g * width + this.#features);
    });
    return tokens;
  }

  #gated(tokens: Float64Array): Float64Array {
    if (!this.#options.gating) return tokens;
    const { width } = this.encoder.shape;
    const gates = this.#parts(this.parameters).gates.map(sigmoid);
    return tokens.map((value, i) => i % width < this.#columns ? value * gates[i % width] : value);
  }

  #addPenalties(values: Parts, gradients: Parts): void {
    const { normPenalty, gatePenalty } = this.#options;
    for (const { name, offset, length } of this.encoder.tensors) {
      if (name === "output.bias") continue;
      const tensor = values.encoder.subarray(offset, offset + length);
      const norm = Math.hypot(...tensor);
      if (norm === 0) continue;
      tensor.forEach((value, i) => gradients.encoder[offset + i] += normPenalty * value / norm);
    }
    values.gates.forEach((gate, i) => gradients.gates[i] += gatePenalty * Math.sign(gate));
  }

  #parts(flat: Float64Array): Parts {
    const gates = this.#options.gating ? this.#columns : 0;
    const embeddings = hasEmbeddings(this.#options) ? this.groups.length * embeddingWidth : 0;
    let end = 0;
    const take = (length: number) => flat.subarray(end, end += length);
    return {
      encoder: take(this.encoder.parameterCount),
      gates: take(gates),
      embeddings: take(embeddings),
      uncertainties: take(metaTerms.length),
    };
  }
}

interface Parts {
  readonly encoder: Float64Array;
  readonly gates: Float64Array;
  readonly embeddings: Float64Array;
  readonly uncertainties: Float64Array;
}

/** The same factors for every group; the λ are ½. */
export function constantFactors(groups: number, alpha: number, beta: number): Factors {
  const filled = (value: number) => new Float64Array(groups).fill(value);
  return { alpha: filled(alpha), beta: filled(beta), lambda1: filled(0.5), lambda2: filled(0.5) };
}

function hasEmbeddings({ features }: Pick<MetaOptions, "features">): boolean {
  return features.endsWith("enhanced");
}

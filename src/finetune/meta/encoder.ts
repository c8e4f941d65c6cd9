/**
 * The transformer encoder of MetaAdamW: tokens are groups of parameters, of each come four numbers.
 *
 *     x += attention(norm(x));  x += W₂ relu(W₁ norm(x));  …;  raw = W_out x + b_out
 *
 * Pre-norm, without a last norm, positions or dropout, as in the authors' code. All parameters lie in one flat array, so
 * that whoever learns them or writes them down need not know what they are.
 * @module
 */
import { randomKey, RandomStream } from "../../core/random.ts";
import {
  attention,
  attentionBackward,
  type AttentionTape,
  layerNorm,
  layerNormBackward,
  type Linear,
  linear,
  linearBackward,
  type Norm,
  type NormTape,
} from "./layers.ts";

/** Sizes of an encoder. */
export interface EncoderShape {
  /** Columns of a token, a multiple of `heads`. */
  readonly width: number;
  readonly heads: number;
  readonly layers: number;
  readonly feedForward: number;
}

/** Numbers that the encoder gives for each token. */
export const encoderOutputs = 4;

/** A parameter's place in the flat array. */
export interface EncoderTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly length: number;
}

/** What the backward pass needs. */
export interface EncoderTape {
  readonly layers: readonly LayerTape[];
  /** [tokens, width]: input of the output layer. */
  readonly encoded: Float64Array;
  /** [tokens, 4] */
  readonly raw: Float64Array;
}

interface LayerTape {
  readonly attentionNorm: NormTape;
  readonly attention: AttentionTape;
  readonly feedForwardNorm: NormTape;
  /** After the ReLU. */
  readonly hidden: Float64Array;
}

interface Layer<N, L> {
  readonly attentionNorm: N;
  readonly projection: L;
  readonly attentionOutput: L;
  readonly feedForwardNorm: N;
  readonly expand: L;
  readonly contract: L;
}

/** An encoder's structure. It holds no numbers. */
export class GroupEncoder {
  readonly shape: EncoderShape;
  readonly tensors: readonly EncoderTensor[];
  /** Elements of the flat array. */
  readonly parameterCount: number;

  constructor(shape: EncoderShape) {
    const { width, heads, layers, feedForward } = shape;
    if (width % heads !== 0) {
      throw new RangeError(`Cannot make an encoder ${width} wide for ${heads} heads: wanted a multiple`);
    }
    this.shape = shape;
    const tensors: EncoderTensor[] = [];
    const add = (name: string, ...sizes: number[]) => {
      const last = tensors.at(-1);
      const length = sizes.reduce((a, b) => a * b);
      tensors.push({ name, shape: sizes, offset: last ? last.offset + last.length : 0, length });
    };
    const addPair = (name: string, outputs: number, ...inputs: number[]) => {
      add(`${name}.weight`, outputs, ...inputs);
      add(`${name}.bias`, outputs);
    };
    for (let layer = 0; layer < layers; layer++) {
      addPair(`${layer}.attentionNorm`, width);
      addPair(`${layer}.projection`, 3 * width, width);
      addPair(`${layer}.attentionOutput`, width, width);
      addPair(`${layer}.feedForwardNorm`, width);
      addPair(`${layer}.expand`, feedForward, width);
      addPair(`${layer}.contract`, width, feedForward);
    }
    addPair("output", encoderOutputs, width);
    this.tensors = tensors;
    this.parameterCount = tensors.reduce((sum, { length }) => sum + length, 0);
  }

  /**
   * Draws parameters: matrices uniform within ±√(6 / (inputs + outputs)) (Glorot and Bengio, 2010), LayerNorm 1 and 0,
   * biases 0. With `zeroOutput` the output layer is 0, and so is all that the encoder gives.
   */
  initialise(parameters: Float64Array, seed: number, zeroOutput: boolean): void {
    for (const { name, shape, offset, length } of this.tensors) {
      const values = parameters.subarray(offset, offset + length);
      if (shape.length === 1) {
        values.fill(name.endsWith("Norm.weight") ? 1 : 0);
      } else if (zeroOutput && name === "output.weight") {
        values.fill(0);
      } else {
        const stream = new RandomStream(randomKey(seed, "meta encoder", name));
        const bound = Math.sqrt(6 / (shape[0] + shape[1]));
        for (let i = 0; i < length; i++) values[i] = bound * (2 * stream.uniform() - 1);
      }
    }
  }

  /** Runs tokens [tokens, width]. */
  forward(parameters: Float64Array, tokens: Float64Array): EncoderTape {
    const { width, heads, layers } = this.shape;
    const tapes: LayerTape[] = [];
    let x = tokens;
    for (let layer = 0; layer < layers; layer++) {
      const p = this.#layer(parameters, layer);
      const attentionNorm = layerNorm(x, p.attentionNorm);
      const attended = attention(linear(attentionNorm.y, p.projection), width, heads);
      x = sum(x, linear(attended.y, p.attentionOutput));
      const feedForwardNorm = layerNorm(x, p.feedForwardNorm);
      const hidden = linear(feedForwardNorm.y, p.expand).map((value) => Math.max(0, value));
      x = sum(x, linear(hidden, p.contract));
      tapes.push({ attentionNorm, attention: attended, feedForwardNorm, hidden });
    }
    return { layers: tapes, encoded: x, raw: linear(x, this.#pair(parameters, "output")) };
  }

  /** Adds the gradients of parameters to `gradients`, for a gradient [tokens, 4] of `raw`; gives that of the tokens. */
  backward(
    parameters: Float64Array,
    tape: EncoderTape,
    gradRaw: Float64Array,
    gradients: Float64Array,
  ): Float64Array {
    const { width, heads, layers } = this.shape;
    const pair = (name: string) => [this.#pair(parameters, name), this.#pair(gradients, name)] as const;
    let dx = linearBackward(gradRaw, tape.encoded, ...pair("output"));
    for (let layer = layers - 1; layer >= 0; layer--) {
      const t = tape.layers[layer];
      const p = this.#layer(parameters, layer);
      const g = this.#layer(gradients, layer);
      const dHidden = linearBackward(dx, t.hidden, p.contract, g.contract);
      const dExpanded = dHidden.map((value, i) => t.hidden[i] > 0 ? value : 0);
      const dNorm = linearBackward(dExpanded, t.feedForwardNorm.y, p.expand, g.expand);
      dx = sum(dx, layerNormBackward(dNorm, t.feedForwardNorm, p.feedForwardNorm, g.feedForwardNorm));
      const dAttended = linearBackward(dx, t.attention.y, p.attentionOutput, g.attentionOutput);
      const dProjected = attentionBackward(dAttended, t.attention, width, heads);
      const dInput = linearBackward(dProjected, t.attentionNorm.y, p.projection, g.projection);
      dx = sum(dx, layerNormBackward(dInput, t.attentionNorm, p.attentionNorm, g.attentionNorm));
    }
    return dx;
  }

  #layer(flat: Float64Array, layer: number): Layer<Norm, Linear> {
    const pair = (name: string) => this.#pair(flat, `${layer}.${name}`);
    return {
      attentionNorm: pair("attentionNorm"),
      projection: pair("projection"),
      attentionOutput: pair("attentionOutput"),
      feedForwardNorm: pair("feedForwardNorm"),
      expand: pair("expand"),
      contract: pair("contract"),
    };
  }

  #pair(flat: Float64Array, name: string): Linear {
    const view = (part: string) => {
      const { offset, length } = this.tensors.find((tensor) => tensor.name === `${name}.${part}`)!;
      return flat.subarray(offset, offset + length);
    };
    return { weight: view("weight"), bias: view("bias") };
  }
}

function sum(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value + b[i]);
}

/**
 * The parts of a transformer in plain float64, forward and backward, for the handful of tokens that MetaAdamW has. All
 * matrices are row-major; x has a row for each token, weights are [outputs, inputs]. Backward passes add to the gradients
 * of parameters and give that of x.
 * @module
 */

/** A linear layer's parameters, or their gradients. */
export interface Linear {
  /** [outputs, inputs] */
  readonly weight: Float64Array;
  /** [outputs] */
  readonly bias: Float64Array;
}

/** y = x Wᵀ + b */
export function linear(x: Float64Array, { weight, bias }: Linear): Float64Array {
  const outputs = bias.length;
  const inputs = weight.length / outputs;
  const rows = x.length / inputs;
  const y = new Float64Array(rows * outputs);
  for (let row = 0; row < rows; row++) {
    for (let output = 0; output < outputs; output++) {
      let sum = bias[output];
      for (let input = 0; input < inputs; input++) {
        sum += weight[output * inputs + input] * x[row * inputs + input];
      }
      y[row * outputs + output] = sum;
    }
  }
  return y;
}

/** dx = dy W, dW += dyᵀ x, db += Σ dy */
export function linearBackward(
  dy: Float64Array,
  x: Float64Array,
  { weight, bias }: Linear,
  gradients: Linear,
): Float64Array {
  const outputs = bias.length;
  const inputs = weight.length / outputs;
  const rows = x.length / inputs;
  const dx = new Float64Array(x.length);
  for (let row = 0; row < rows; row++) {
    for (let output = 0; output < outputs; output++) {
      const d = dy[row * outputs + output];
      gradients.bias[output] += d;
      for (let input = 0; input < inputs; input++) {
        gradients.weight[output * inputs + input] += d * x[row * inputs + input];
        dx[row * inputs + input] += d * weight[output * inputs + input];
      }
    }
  }
  return dx;
}

/** LayerNorm's parameters, or their gradients; each as wide as a token. */
export interface Norm {
  readonly weight: Float64Array;
  readonly bias: Float64Array;
}

/** What LayerNorm's backward pass needs. */
export interface NormTape {
  /** x without its mean and of variance 1. */
  readonly standard: Float64Array;
  /** 1 / √(variance + ε) of each token. */
  readonly scales: Float64Array;
  readonly y: Float64Array;
}

const normEpsilon = 1e-5;

/** y = γ (x − mean) / √(variance + 1e-5) + β for each token. */
export function layerNorm(x: Float64Array, { weight, bias }: Norm): NormTape {
  const width = weight.length;
  const rows = x.length / width;
  const tape = {
    standard: new Float64Array(x.length),
    scales: new Float64Array(rows),
    y: new Float64Array(x.length),
  };
  for (let row = 0; row < rows; row++) {
    const token = x.subarray(row * width, (row + 1) * width);
    const mean = token.reduce((sum, value) => sum + value, 0) / width;
    const variance = token.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width;
    tape.scales[row] = 1 / Math.sqrt(variance + normEpsilon);
    for (let i = 0; i < width; i++) {
      const standard = (token[i] - mean) * tape.scales[row];
      tape.standard[row * width + i] = standard;
      tape.y[row * width + i] = weight[i] * standard + bias[i];
    }
  }
  return tape;
}

/** dx = scale (γ dy − mean(γ dy) − s mean(γ dy s)) with s the standardised x, for each token. */
export function layerNormBackward(
  dy: Float64Array,
  { standard, scales }: NormTape,
  { weight }: Norm,
  gradients: Norm,
): Float64Array {
  const width = weight.length;
  const dx = new Float64Array(dy.length);
  scales.forEach((scale, row) => {
    let [mean, along] = [0, 0];
    for (let i = 0; i < width; i++) {
      const at = row * width + i;
      gradients.weight[i] += dy[at] * standard[at];
      gradients.bias[i] += dy[at];
      mean += weight[i] * dy[at] / width;
      along += weight[i] * dy[at] * standard[at] / width;
    }
    for (let i = 0; i < width; i++) {
      const at = row * width + i;
      dx[at] = scale * (weight[i] * dy[at] - mean - standard[at] * along);
    }
  });
  return dx;
}

/** What attention's backward pass needs. */
export interface AttentionTape {
  /** [tokens, 3 · width]: queries, keys, values. */
  readonly projected: Float64Array;
  /** [heads, tokens, tokens]: rows that sum to 1. */
  readonly shares: Float64Array;
  /** [tokens, width] */
  readonly y: Float64Array;
}

/** softmax(q kᵀ / √headSize) v, head by head; every token attends to every token. */
export function attention(projected: Float64Array, width: number, heads: number): AttentionTape {
  const tokens = projected.length / (3 * width);
  const headSize = width / heads;
  const shares = new Float64Array(heads * tokens * tokens);
  const y = new Float64Array(tokens * width);
  for (let head = 0; head < heads; head++) {
    for (let to = 0; to < tokens; to++) {
      const row = shares.subarray((head * tokens + to) * tokens, (head * tokens + to + 1) * tokens);
      for (let from = 0; from < tokens; from++) {
        let sum = 0;
        for (let i = head * headSize; i < (head + 1) * headSize; i++) {
          sum += projected[3 * width * to + i] * projected[3 * width * from + width + i];
        }
        row[from] = sum / Math.sqrt(headSize);
      }
      softmax(row);
      for (let from = 0; from < tokens; from++) {
        for (let i = head * headSize; i < (head + 1) * headSize; i++) {
          y[width * to + i] += row[from] * projected[3 * width * from + 2 * width + i];
        }
      }
    }
  }
  return { projected, shares, y };
}

/** The gradient of the projections. */
export function attentionBackward(
  dy: Float64Array,
  { projected, shares }: AttentionTape,
  width: number,
  heads: number,
): Float64Array {
  const tokens = dy.length / width;
  const headSize = width / heads;
  const gradient = new Float64Array(projected.length);
  for (let head = 0; head < heads; head++) {
    for (let to = 0; to < tokens; to++) {
      const row = shares.subarray((head * tokens + to) * tokens, (head * tokens + to + 1) * tokens);
      const gradRow = new Float64Array(tokens);
      for (let from = 0; from < tokens; from++) {
        for (let i = head * headSize; i < (head + 1) * headSize; i++) {
          const value = 3 * width * from + 2 * width + i;
          gradRow[from] += dy[width * to + i] * projected[value];
          gradient[value] += dy[width * to + i] * row[from];
        }
      }
      const mean = row.reduce((sum, share, from) => sum + share * gradRow[from], 0);
      for (let from = 0; from < tokens; from++) {
        const gradScore = row[from] * (gradRow[from] - mean) / Math.sqrt(headSize);
        for (let i = head * headSize; i < (head + 1) * headSize; i++) {
          const query = 3 * width * to + i;
          const key = 3 * width * from + width + i;
          gradient[query] += gradScore * projected[key];
          gradient[key] += gradScore * projected[query];
        }
      }
    }
  }
  return gradient;
}

function softmax(row: Float64Array): void {
  const most = row.reduce((a, b) => Math.max(a, b), -Infinity);
  for (let i = 0; i < row.length; i++) row[i] = Math.exp(row[i] - most);
  const sum = row.reduce((a, b) => a + b, 0);
  for (let i = 0; i < row.length; i++) row[i] /= sum;
}

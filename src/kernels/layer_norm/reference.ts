/**
 * Layer normalisation (Ba, Kiros and Hinton, arXiv 1607.06450) and its gradients by their definitions.
 * Matrices are row-major [features, columns]; each column is normalised by itself.
 * @module
 */
import type { NumberArray } from "../../graph/operation.ts";

/** Gives an array of the same kind, zero-filled. */
function likeArray(array: NumberArray, length: number): NumberArray {
  return array instanceof Float64Array ? new Float64Array(length) : new Float32Array(length);
}

/** Results of `layerNormReference`. */
export interface LayerNormResult {
  /** (summed − mean) / std · gamma + beta, [features, columns] */
  readonly y: NumberArray;
  /** x + residual, [features, columns] */
  readonly summed: NumberArray;
  /** A row of means, a row of 1 / std: [2, columns] */
  readonly statistics: NumberArray;
}

/** Normalises every column of x + residual, with std = √(variance + epsilon) and the population variance. */
export function layerNormReference(
  x: NumberArray,
  residual: NumberArray | undefined,
  gamma: NumberArray,
  beta: NumberArray,
  epsilon: number,
  columns: number,
): LayerNormResult {
  const features = gamma.length;
  const y = likeArray(x, x.length);
  const summed = x.map((value, i) => value + (residual?.[i] ?? 0));
  const statistics = likeArray(x, 2 * columns);
  for (let column = 0; column < columns; column++) {
    let sum = 0;
    for (let feature = 0; feature < features; feature++) sum += summed[feature * columns + column];
    const mean = sum / features;
    let squares = 0;
    for (let feature = 0; feature < features; feature++) {
      squares += (summed[feature * columns + column] - mean) ** 2;
    }
    const inverseStd = 1 / Math.sqrt(squares / features + epsilon);
    for (let feature = 0; feature < features; feature++) {
      const i = feature * columns + column;
      y[i] = (summed[i] - mean) * inverseStd * gamma[feature] + beta[feature];
    }
    statistics[column] = mean;
    statistics[columns + column] = inverseStd;
  }
  return { y, summed, statistics };
}

/**
 * gradX = (g − mean(g) − n · mean(g · n)) / std, per column, with n = (summed − mean) / std and g = gradY · gamma.
 * The gradient with respect to x, and to the residual as well.
 */
export function layerNormGradientReference(
  gradY: NumberArray,
  summed: NumberArray,
  statistics: NumberArray,
  gamma: NumberArray,
  columns: number,
): NumberArray {
  const features = gamma.length;
  const gradX = likeArray(gradY, gradY.length);
  for (let column = 0; column < columns; column++) {
    const mean = statistics[column];
    const inverseStd = statistics[columns + column];
    const scaled = (feature: number) => gradY[feature * columns + column] * gamma[feature];
    const normalised = (feature: number) => (summed[feature * columns + column] - mean) * inverseStd;
    let sum = 0;
    let dot = 0;
    for (let feature = 0; feature < features; feature++) {
      sum += scaled(feature);
      dot += scaled(feature) * normalised(feature);
    }
    for (let feature = 0; feature < features; feature++) {
      gradX[feature * columns + column] =
        (scaled(feature) - sum / features - normalised(feature) * dot / features) * inverseStd;
    }
  }
  return gradX;
}

/** gradGamma = Σ over columns of gradY · n, gradBeta = Σ over columns of gradY: [features] each. */
export function layerNormParameterGradientReference(
  gradY: NumberArray,
  summed: NumberArray,
  statistics: NumberArray,
  columns: number,
): { gradGamma: NumberArray; gradBeta: NumberArray } {
  const features = gradY.length / columns;
  const gradGamma = likeArray(gradY, features);
  const gradBeta = likeArray(gradY, features);
  for (let feature = 0; feature < features; feature++) {
    let gamma = 0;
    let beta = 0;
    for (let column = 0; column < columns; column++) {
      const i = feature * columns + column;
      gamma += gradY[i] * (summed[i] - statistics[column]) * statistics[columns + column];
      beta += gradY[i];
    }
    gradGamma[feature] = gamma;
    gradBeta[feature] = beta;
  }
  return { gradGamma, gradBeta };
}

/**
 * What the encoder sees of a group: statistics of its tensors, and the time.
 *
 * Versions `basic` (mean norms of g, m and w, mean cosine of g and m), `basic_plus` (and their standard deviations) and
 * `enhanced` are those of Zhao and Liu (arXiv 2605.04055, section 3.3); `norm_…` standardises their columns across the
 * groups. `log` is ours: logarithms of root mean squares, which are of like scale for a bias of two numbers and a table
 * of millions, standardised too.
 * @module
 */
import type { TensorStatistics } from "./statistics.ts";

/** Which statistics. */
export type FeatureVersion =
  | "basic"
  | "basic_plus"
  | "enhanced"
  | "norm_basic"
  | "norm_basic_plus"
  | "norm_enhanced"
  | "log";

/** All of them. */
export const featureVersions: readonly FeatureVersion[] = [
  "basic",
  "basic_plus",
  "enhanced",
  "norm_basic",
  "norm_basic_plus",
  "norm_enhanced",
  "log",
];

/** A tensor of a group: what was measured, and what is known of it anyway. */
export interface GroupTensor {
  readonly statistics: TensorStatistics;
  readonly isBias: boolean;
  /** Its layer over the last, in [0, 1]; 0 outside of layers. */
  readonly depth: number;
}

/** Which columns. */
export interface FeatureOptions {
  readonly features: FeatureVersion;
  readonly secondMomentNorms: boolean;
  readonly time: boolean;
}

/** A table of numbers, row-major. */
export interface Table {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float64Array;
}

/** Columns of statistics, without time; what `groupFeatures` gives has one more with it. */
export function featureCount({ features, secondMomentNorms, time }: FeatureOptions): number {
  const norms = secondMomentNorms ? 5 : 4;
  const version = features.replace("norm_", "");
  return { basic: norms, basic_plus: 2 * norms, enhanced: 9, log: norms }[version]! + (time ? 1 : 0);
}

/**
 * The features of each group: [groups, `featureCount`], the time last. `time` is the share of the steps that are done. A version standardises only
 * where there are two groups or more.
 */
export function groupFeatures(
  groups: readonly (readonly GroupTensor[])[],
  options: FeatureOptions,
  time: number,
): Table {
  const rows = groups.map((tensors) => rowOf(tensors, options));
  if (options.features.startsWith("norm_")) standardise(rows, { ddof: 1, scale: (std) => std + 1e-8 });
  if (options.features === "log") standardise(rows, { ddof: 0, scale: (std) => Math.max(std, 1e-3) });
  if (options.time) { for (const row of rows) row.push(time); }
  return { rows: rows.length, columns: rows[0].length, values: Float64Array.from(rows.flat()) };
}

function rowOf(tensors: readonly GroupTensor[], { features, secondMomentNorms }: FeatureOptions): number[] {
  const statistics = tensors.map((tensor) => tensor.statistics);
  if (features === "log") return logarithms(statistics, secondMomentNorms);
  const gradients = statistics.map((s) => Math.sqrt(s.gradientSquares));
  const moments = statistics.map((s) => Math.sqrt(s.firstMomentSquares));
  if (features.endsWith("enhanced")) {
    const shareOf = (zeros: number, { count }: TensorStatistics) => count === 0 ? 1 : zeros / count;
    return [
      mean(gradients),
      variance(gradients),
      mean(moments),
      variance(moments),
      mean(statistics.map((s) => shareOf(s.zeroGradients, s))),
      mean(statistics.map((s) => shareOf(s.zeroMoments, s))),
      mean(statistics.map((s) => Math.log(s.count + 1))),
      mean(tensors.map(({ isBias }) => isBias ? 1 : 0)),
      mean(tensors.map(({ depth }) => depth)),
    ];
  }
  const columns = [
    gradients,
    moments,
    statistics.map((s) => Math.sqrt(s.weightSquares)),
    statistics.map(cosine),
    ...(secondMomentNorms ? [statistics.map((s) => Math.sqrt(s.secondMomentSquares))] : []),
  ];
  const means = columns.map(mean);
  if (!features.endsWith("plus")) return means;
  return [...means, ...columns.map((column) => Math.sqrt(variance(column)))];
}

/** ln(1e-12 + ‖x‖ / √n) of g, m and w, the cosine of g and m, and the same of v, over all tensors as one. */
function logarithms(statistics: readonly TensorStatistics[], secondMomentNorms: boolean): number[] {
  const sum = (of: (s: TensorStatistics) => number) => statistics.reduce((total, s) => total + of(s), 0);
  const count = Math.max(1, sum((s) => s.count));
  const level = (squares: number) => Math.log(1e-12 + Math.sqrt(squares / count));
  const gradientSquares = sum((s) => s.gradientSquares);
  const firstMomentSquares = sum((s) => s.firstMomentSquares);
  const dot = sum((s) => s.dot);
  return [
    level(gradientSquares),
    level(firstMomentSquares),
    level(sum((s) => s.weightSquares)),
    cosine({ gradientSquares, firstMomentSquares, dot }),
    ...(secondMomentNorms ? [level(sum((s) => s.secondMomentSquares))] : []),
  ];
}

/** The cosine of gradient and first moment; 0 where one of them is. */
function cosine(
  { gradientSquares, firstMomentSquares, dot }: Pick<
    TensorStatistics,
    "gradientSquares" | "firstMomentSquares" | "dot"
  >,
): number {
  const norms = Math.sqrt(gradientSquares) * Math.sqrt(firstMomentSquares);
  return norms === 0 ? 0 : dot / norms;
}

function standardise(
  rows: readonly number[][],
  { ddof, scale }: { readonly ddof: number; readonly scale: (std: number) => number },
): void {
  if (rows.length < 2) return;
  for (let column = 0; column < rows[0].length; column++) {
    const values = rows.map((row) => row[column]);
    const center = mean(values);
    const divisor = scale(Math.sqrt(variance(values, ddof)));
    for (const row of rows) row[column] = (row[column] - center) / divisor;
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Of the population unless told. */
function variance(values: readonly number[], ddof = 0): number {
  const center = mean(values);
  return values.reduce((sum, value) => sum + (value - center) ** 2, 0) / (values.length - ddof);
}

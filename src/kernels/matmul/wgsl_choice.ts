/**
 * Which way of computing a product a shape takes on the GPU. Pure functions, so that a sweep can time every candidate.
 * @module
 */
import type { ShaderTarget } from "../shader.ts";
import { type MatmulConfiguration, matmulConfigurations } from "./wgsl_configurations.ts";
import type { Product, ProductPrecision } from "./wgsl_product.ts";

/** What a shape takes. */
export interface MatmulChoice {
  readonly configuration: MatmulConfiguration;
  /** Workgroups among which the depth of each tile is divided; their sums are added in order by a second shader. */
  readonly shares: number;
}

/**
 * The machine that choices are made for; WebGPU does not tell. Between the 108 multiprocessors of an A100 and the 132 of an H100,
 * each with 128 multipliers.
 */
const multiprocessors = 128;
/** What a workgroup's start, its first tiles and its results cost, in steps of depth. */
const startSteps = 48;
/** The same with tensor cores, whose steps are so much shorter. */
const matrixStartSteps = 192;
/** Multiplications of one multiprocessor in the time that memory takes to write and read a partial sum. */
const partialSumCost = 0.5;
/** The same for the start of another shader, some 4 µs. */
const secondShaderCost = 1e6;
const mostShares = 32;
/** Multiplications from which on a CPU that plays the GPU takes its large blocks. */
const largeProduct = 2 ** 20;

/**
 * Everything that a target can do for a product: each configuration, and for gradients of weights with the depth divided among 1, 2, 4
 * … workgroups. What a sweep times; the choice is among those of the target's own kind.
 */
export function matmulCandidates(
  product: Product,
  target: ShaderTarget,
  precision: ProductPrecision = "fp32",
): MatmulChoice[] {
  return matmulConfigurations(target, precision).flatMap((configuration) => {
    const choices: MatmulChoice[] = [{ configuration, shares: 1 }];
    if (configuration.kind === "direct") return choices;
    for (let shares = 2; shares <= mostShares && mayDivideDepth(product, shares, target); shares *= 2) {
      choices.push({ configuration, shares });
    }
    return choices;
  });
}

/**
 * What a product takes on a target: on software blocks by its size, whose sums are the same bits, else the candidate of the least estimated cost. Tensor cores
 * sum in an order of their own, so where they are used, they make all products: an answer shall not depend on how large its batch is.
 */
export function chooseMatmulConfiguration(
  product: Product,
  target: ShaderTarget,
  precision: ProductPrecision = "fp32",
): MatmulChoice {
  if (target.isSoftware) return softwareChoice(product, target, precision);
  const all = matmulCandidates(product, target, precision);
  const matrices = all.filter(({ configuration }) => configuration.kind === "matrix");
  let best: MatmulChoice | undefined;
  let least = Infinity;
  for (const choice of matrices.length > 0 ? matrices : all) {
    const cost = estimatedCost(product, choice);
    if (cost < least) [best, least] = [choice, cost];
  }
  return best!;
}

/** Large blocks where enough is multiplied that they are worth compiling. */
function softwareChoice(
  { rows, columns, depth }: Product,
  target: ShaderTarget,
  precision: ProductPrecision,
): MatmulChoice {
  const [large, small] = matmulConfigurations(target, precision);
  const isLarge = rows * columns * depth >= largeProduct;
  return { configuration: isLarge ? large : small, shares: 1 };
}

/**
 * Whether the depth may be divided. It is the tokens of the batch in the gradient of a weight only; elsewhere the tokens would
 * decide the order of a sum, and an answer would depend on what else is in its batch.
 */
function mayDivideDepth(
  { aTransposed, rows, columns, depth }: Product,
  shares: number,
  target: ShaderTarget,
) {
  return aTransposed && depth >= 64 * shares && rows * columns * shares * 4 <= target.maxBindingBytes;
}

/** Time in multiplications of one multiprocessor: the workgroups in turns, and what dividing the depth adds. */
function estimatedCost({ rows, columns, depth }: Product, { configuration, shares }: MatmulChoice): number {
  if (configuration.kind === "direct") return Infinity;
  const { kind, tileRows, tileColumns, efficiency } = configuration;
  const start = kind === "matrix" ? matrixStartSteps : startSteps;
  const workgroups = Math.ceil(rows / tileRows) * Math.ceil(columns / tileColumns) * shares;
  const workgroupCost = tileRows * tileColumns * (depth / shares + start) / efficiency;
  const partials = shares > 1 ? secondShaderCost + rows * columns * shares * partialSumCost : 0;
  return Math.ceil(workgroups / multiprocessors) * workgroupCost + partials;
}

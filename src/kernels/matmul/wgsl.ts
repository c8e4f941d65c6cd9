/**
 * The linear layer and the gradient of its weight on the GPU.
 * @module
 */
import type { ValueType } from "../../graph/graph.ts";
import {
  type BufferRange,
  defineLowering,
  linearGrid,
  type ShaderCall,
  type ShaderTarget,
  uniformWords,
  wholeRange,
} from "../shader.ts";
import { matmulWeightGradient } from "./gradient.ts";
import { matmul, type MatmulAttributes } from "./operation.ts";
import { chooseMatmulConfiguration, type MatmulChoice } from "./wgsl_choice.ts";
import { directDepthStep, directShader } from "./wgsl_direct.ts";
import { matrixShader } from "./wgsl_matrix.ts";
import { partialsWidth, sumPartialsShader } from "./wgsl_partials.ts";
import type { ProductDestination } from "./wgsl_patches.ts";
import { type Product, type ProductPrecision, productTraits } from "./wgsl_product.ts";
import { tiledShader } from "./wgsl_tiled.ts";

/** y = act(op(W)·x + bias) + addend. */
export const matmulShaders = defineLowering<MatmulAttributes>({
  operation: matmul,
  lower({ attributes, inputs, outputs: [y], target }) {
    const product = linearProduct(attributes, inputs.map((input) => input?.type), y.type);
    const names = ["x", "weight", "bias", "addend"];
    const operands = inputs.flatMap((input, index) => input ? [wholeRange(input, names[index])] : []);
    const choice = chooseMatmulConfiguration(product, target, precisionOn(target));
    return productCalls(product, choice, { operands, result: wholeRange(y, "y") }, target);
  },
});

/** gradWeight = gradY · xᵀ. */
export const matmulWeightGradientShaders = defineLowering({
  operation: matmulWeightGradient,

  scratchBytes({ inputTypes, outputTypes: [result] }, target) {
    const product = weightGradientProduct(inputTypes[0]!, result);
    return partialsBytes(product, chooseMatmulConfiguration(product, target, precisionOn(target)));
  },

  lower({ inputs: [gradY, x], outputs: [result], scratch: [partials], target }) {
    const product = weightGradientProduct(gradY!.type, result.type);
    return productCalls(product, chooseMatmulConfiguration(product, target, precisionOn(target)), {
      operands: [wholeRange(gradY!, "gradY"), wholeRange(x!, "x")],
      result: wholeRange(result, "gradWeight"),
      partials,
    }, target);
  },
});

/** Where activations are float16, weights are rounded too as they are read, and tensor cores can multiply them. */
function precisionOn({ activations }: ShaderTarget): ProductPrecision {
  return activations === "f16" ? "fp16" : "fp32";
}

/** The product of a linear layer: tokens are its rows. */
export function linearProduct(
  { transposed, activation }: MatmulAttributes,
  [x, , bias, addend]: readonly (ValueType | undefined)[],
  y: ValueType,
): Product {
  return {
    rows: y.shape[1],
    columns: y.shape[0],
    depth: x!.shape[0],
    aTransposed: false,
    bTransposed: !transposed,
    bias: bias !== undefined,
    addend: addend !== undefined,
    activation,
  };
}

/** The product of a weight's gradient: tokens are its depth. */
export function weightGradientProduct(gradY: ValueType, gradWeight: ValueType): Product {
  return {
    rows: gradWeight.shape[0],
    columns: gradWeight.shape[1],
    depth: gradY.shape[1],
    aTransposed: true,
    bTransposed: false,
    bias: false,
    addend: false,
    activation: "none",
  };
}

/** Bytes of the private buffer that a choice needs: none, or one for the sums of each share. */
export function partialsBytes({ rows, columns }: Product, { shares }: MatmulChoice): number[] {
  return shares > 1 ? [rows * columns * shares * 4] : [];
}

/** Where a product's operands (A, B, then the bias and the addend if it has them), result and partial sums lie. */
export interface ProductRanges {
  readonly operands: readonly BufferRange[];
  readonly result: BufferRange;
  /** As long as `partialsBytes` says. */
  readonly partials?: BufferRange;
}

/** The calls of a product done in a chosen way. */
export function productCalls(
  product: Product,
  { configuration, shares }: MatmulChoice,
  { operands, result, partials }: ProductRanges,
  target: ShaderTarget,
): ShaderCall[] {
  const { rows, columns, depth } = product;
  const { tileRows, tileColumns } = configuration;
  const tiles = [Math.ceil(columns / tileColumns), Math.ceil(rows / tileRows)] as const;
  if (configuration.kind === "direct") {
    const shader = directShader(configuration, productTraits(product, directDepthStep));
    const uniforms = uniformWords(rows, columns, depth, depth);
    return [{ shader, ranges: [...operands, result], uniforms, workgroups: [...tiles, 1] }];
  }
  const { tileDepth } = configuration;
  const traits = productTraits(product, tileDepth);
  const shareDepth = Math.ceil(depth / tileDepth / shares) * tileDepth;
  const uniforms = uniformWords(rows, columns, depth, shareDepth);
  const shaderTo = (destination: ProductDestination) =>
    configuration.kind === "matrix"
      ? matrixShader(configuration, traits, destination)
      : tiledShader(configuration, traits, destination);
  if (shares === 1) {
    return [{
      shader: shaderTo("result"),
      ranges: [...operands, result],
      uniforms,
      workgroups: [...tiles, 1],
    }];
  }
  if (!partials || product.bias || product.addend || product.activation !== "none") {
    throw new Error(
      "Cannot divide the depth of this product: wanted a plain one, and a buffer for partial sums",
    );
  }
  const vectors = traits.resultVectors;
  const count = rows * columns / partialsWidth(vectors);
  const groups = linearGrid(Math.ceil(count / 256), target);
  return [
    // A share whose depth is empty makes zeros.
    {
      shader: shaderTo("partials"),
      ranges: [...operands, partials],
      uniforms,
      workgroups: [...tiles, shares],
    },
    {
      shader: sumPartialsShader(vectors),
      ranges: [partials, result],
      uniforms: uniformWords(count, shares, groups[0]),
      workgroups: groups,
    },
  ];
}

/**
 * The one list of what runs on the GPU. Loaded only when a GPU is used.
 * @module
 */
import { addShaders } from "../kernels/add/wgsl.ts";
import { attentionShaders } from "../kernels/attention/wgsl.ts";
import { attentionGradientShaders } from "../kernels/attention/wgsl_gradient.ts";
import { dropoutShaders } from "../kernels/dropout/wgsl.ts";
import { embeddingGradientShaders, embeddingShaders } from "../kernels/embedding/wgsl.ts";
import { gatherValuesShaders } from "../kernels/gather/wgsl.ts";
import { geluGradientShaders, geluShaders } from "../kernels/gelu/wgsl.ts";
import {
  layerNormGradientShaders,
  layerNormParameterGradientShaders,
  layerNormShaders,
} from "../kernels/layer_norm/wgsl.ts";
import { matmulShaders, matmulWeightGradientShaders } from "../kernels/matmul/wgsl.ts";
import { meanSquaredErrorShaders } from "../kernels/mean_squared_error/wgsl.ts";
import { selectColumnsGradientShaders, selectColumnsShaders } from "../kernels/select_columns/wgsl.ts";
import { softmaxCrossEntropyShaders } from "../kernels/softmax_cross_entropy/wgsl.ts";
import { sumColumnsShaders } from "../kernels/sum_columns/wgsl.ts";
import { tanhGradientShaders, tanhShaders } from "../kernels/tanh/wgsl.ts";
import type { ShaderLowering } from "../kernels/shader.ts";

// Each operation reads its own attributes only.
// deno-lint-ignore no-explicit-any
const all: readonly ShaderLowering<any>[] = [
  attentionShaders,
  attentionGradientShaders,
  dropoutShaders,
  geluShaders,
  geluGradientShaders,
  addShaders,
  tanhGradientShaders,
  tanhShaders,
  gatherValuesShaders,
  sumColumnsShaders,
  layerNormGradientShaders,
  layerNormParameterGradientShaders,
  layerNormShaders,
  embeddingGradientShaders,
  embeddingShaders,
  selectColumnsGradientShaders,
  selectColumnsShaders,
  softmaxCrossEntropyShaders,
  meanSquaredErrorShaders,
  matmulShaders,
  matmulWeightGradientShaders,
];

/** Lowerings by the name of their operation. */
export const lowerings: ReadonlyMap<string, ShaderLowering> = new Map(
  all.map((lowering) => [lowering.operation.name, lowering]),
);

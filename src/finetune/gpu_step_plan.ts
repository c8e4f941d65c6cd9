/**
 * The shader plan of a training or evaluation step: the same graph as on the CPU (`step_plan.ts`), its gradients, the optimiser.
 * Pruned matrices are dense with zeros, and tables are updated whole.
 * @module
 */
import { differentiate } from "../graph/autodiff.ts";
import { Graph, type Value } from "../graph/graph.ts";
import { accumulateCalls } from "../kernels/accumulate/wgsl.ts";
import { globalNormCalls, globalNormPartialBytes } from "../kernels/global_norm/wgsl.ts";
import { nextLossScaleCall } from "../kernels/loss_scale/wgsl.ts";
import { updateCalls } from "../kernels/optimizer/wgsl.ts";
import type { BufferRange, ShaderCall, ShaderOperand, ShaderTarget } from "../kernels/shader.ts";
import { operandAt } from "../webgpu/operands.ts";
import { planShaders, type ShaderPlan } from "../webgpu/shader_plan.ts";
import { type FlatArray, flatOperand, flatRange, type GpuArrays, piecesOf } from "./gpu_arrays.ts";
import { toldLayout, wordsAt } from "./gpu_told.ts";
import type { StepMode } from "./step_plan.ts";
import { type Stretch, stretchesOf, trainedNames } from "./stretches.ts";
import type { TrainerOptions, TrainerShape } from "./trainer_needs.ts";

/** Buffers of a trainer that are as large whatever the batch. */
export interface GpuPlaces {
  readonly arrays: GpuArrays;
  /** See `gpu_told.ts`; as large as the largest batch wants. */
  readonly told: number;
  /** f32: the mean loss of the batch. */
  readonly loss: number;
  /** f32: the same of several batches that make a step. */
  readonly lossSum: number;
  /** Two f32: the gradients' norm and the clip factor. */
  readonly norm: number;
  /** See `globalNormCalls`. */
  readonly partials: number;
  /** See `nextLossScaleCall`; there where activations are float16. */
  readonly lossScale?: number;
}

/** What to plan an update of. */
export interface GpuUpdateRequest extends Pick<TrainerShape, "layout" | "rule" | "groups"> {
  readonly options: Pick<TrainerOptions<never>, "maximumNorm">;
  readonly target: ShaderTarget;
  readonly places: GpuPlaces;
}

/** What to plan. */
export interface GpuStepRequest extends GpuUpdateRequest {
  readonly options: Pick<TrainerOptions<never>, "model" | "maximumNorm" | "checkpoints">;
  /** Multiples of `ShaderTarget.columnGrain`. */
  readonly columns: number;
  readonly sequences: number;
  /** A plan for a larger batch, on whose buffers this one shall run. */
  readonly reuse?: ShaderPlan;
}

/** Plans what a program does with a batch. Pure: buffers may be made up. */
export function planGpuStep(mode: StepMode, request: GpuStepRequest): ShaderPlan {
  const { options: { model, checkpoints: isFrugal }, layout, groups, rule, target, places } = request;
  const { columns, sequences, reuse } = request;
  const { arrays, told, loss: lossBuffer, lossScale } = places;
  const graph = new Graph();
  const { loss, checkpoints } = model.build(graph, {
    columns,
    sequences,
    mode: mode === "evaluate" ? "evaluate" : "train",
    dropout: mode !== "evaluate" && mode !== "gradient",
  });
  graph.output("loss", loss);
  const bindings = new Map<Value, ShaderOperand>();
  for (const [name, value] of graph.parameters) {
    bindings.set(value, flatOperand(arrays, arrays.weights, layout.slot(name), value.type, target));
  }
  const { inputs, seed } = toldLayout(rule, groups.length, model.inputs({ columns, sequences }));
  for (const [name, { type }] of graph.inputs) {
    const byteOffset = name === "seed" ? seed : inputs.get(name)!;
    bindings.set(graph.inputs.get(name)!, operandAt(name, type, { buffer: told, byteOffset }, target));
  }
  bindings.set(loss, operandAt("loss", loss.type, { buffer: lossBuffer }, target));
  if (mode === "evaluate") return planShaders(graph, { target, bindings, reuse });

  const trained = trainedNames(groups);
  for (const [name, gradient] of differentiate(graph, loss, { checkpoints: isFrugal ? checkpoints : [] })) {
    if (!trained.has(name)) continue;
    graph.output(`gradient.${name}`, gradient);
    bindings.set(gradient, flatOperand(arrays, arrays.gradients, layout.slot(name), gradient.type, target));
  }
  const epilogue = epilogueOf(mode, request);
  // What others look at is exact: an evaluation, gradients that decide on masks.
  if (lossScale === undefined || mode === "gradient") {
    return planShaders(graph, { target, bindings, reuse, epilogue });
  }
  const [, root] = graph.producer(loss)!.outputs;
  return planShaders(graph, {
    target: { ...target, activations: "f16" },
    bindings,
    reuse,
    epilogue,
    scaled: { value: root, factor: wordsAt(lossScale, 0, 1) },
  });
}

/** Plans the update of a step that several batches made the gradients of. */
export function planGpuUpdate(request: GpuUpdateRequest): ShaderPlan {
  const { target, places: { arrays } } = request;
  return planShaders(new Graph(), {
    target,
    bindings: new Map(),
    epilogue: optimizerCalls(request, arrays.gradientSums!),
  });
}

/** Bytes of `GpuPlaces.partials`. */
export function partialBytes(
  request: Omit<GpuUpdateRequest, "places" | "options">,
  arrays: GpuArrays,
): number {
  return globalNormPartialBytes(trainedPieces(request, arrays));
}

function epilogueOf(mode: StepMode, request: GpuStepRequest): ShaderCall[] {
  const { target, places, rule, groups } = request;
  const { arrays, told, loss, lossSum } = places;
  if (mode === "train") return optimizerCalls(request, arrays.gradients);
  if (mode === "gradient") return [];
  return accumulateCalls({
    ranges: [
      ...trainedPieces(request, arrays).map((piece) => ({
        gradients: flatRange(arrays, arrays.gradients, piece),
        sums: flatRange(arrays, arrays.gradientSums!, piece),
        count: piece.count,
      })),
      { gradients: wordsAt(loss, 0, 1), sums: wordsAt(lossSum, 0, 1), count: 1 },
    ],
    scale: wordsAt(told, toldLayout(rule, groups.length).share, 1),
    begins: mode === "begin",
    target,
  });
}

/** The global norm, then one fused pass over each stretch of parameters that are updated alike. */
function optimizerCalls(request: GpuUpdateRequest, gradients: FlatArray): ShaderCall[] {
  const { rule, groups, target, places: { arrays, norm, partials, told, lossScale } } = request;
  const pieces = trainedPieces(request, arrays);
  const gradientsOf = (piece: Stretch) => flatRange(arrays, gradients, piece);
  const maskOf = ({ begin, count, masked }: Stretch): BufferRange | undefined =>
    masked ? { buffer: arrays.mask, byteOffset: begin / 8, byteLength: count / 8 } : undefined;
  const clip = wordsAt(norm, 0, 2);
  const { scalars } = toldLayout(rule, groups.length);
  return [
    ...globalNormCalls({
      gradients: pieces.map((piece) => ({
        range: gradientsOf(piece),
        count: piece.count,
        mask: maskOf(piece),
      })),
      partials: { buffer: partials, byteOffset: 0, byteLength: globalNormPartialBytes(pieces) },
      result: clip,
      maximumNorm: request.options.maximumNorm,
      scale: lossScale === undefined ? undefined : wordsAt(lossScale, 0, 1),
      target,
    }),
    ...updateCalls({
      rule,
      ranges: pieces.map((piece) => ({
        weights: flatRange(arrays, arrays.weights, piece),
        states: arrays.states.map((state) => flatRange(arrays, state, piece)),
        gradients: gradientsOf(piece),
        mask: maskOf(piece),
        scalars: wordsAt(told, scalars[piece.group], rule.scalars.length),
        count: piece.count,
      })),
      clip,
      target,
    }),
    ...(lossScale === undefined ? [] : [
      nextLossScaleCall({ norm: wordsAt(norm, 0, 1), state: wordsAt(lossScale, 0, 2), target }),
    ]),
  ];
}

function trainedPieces(
  { layout, groups, target }: Pick<GpuUpdateRequest, "layout" | "groups" | "target">,
  arrays: GpuArrays,
): Stretch[] {
  return stretchesOf(layout, groups).flatMap((stretch) => piecesOf(arrays, stretch, target));
}

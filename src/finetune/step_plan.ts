/**
 * The plan of one training or evaluation step: the model's graph, its gradients, and the optimiser.
 * @module
 */
import { type SparseInputs, sparseInputs } from "../../models/encoder.ts";
import { differentiate } from "../graph/autodiff.ts";
import { Graph, type Value } from "../graph/graph.ts";
import type { Step, Target } from "../graph/operation.ts";
import { accumulateSteps } from "../kernels/accumulate/kernel.ts";
import { type FlatRange, globalNormSteps } from "../kernels/global_norm/steps.ts";
import type { UpdateRule } from "../kernels/optimizer/rule.ts";
import { type UpdateRange, updateSteps } from "../kernels/optimizer/steps.ts";
import type { PackedStructure } from "../kernels/sparse_matmul/pack.ts";
import { type Plan, planGraph } from "../plan/plan.ts";
import type { CompactMatrices } from "./compact.ts";
import type { ParameterGroup } from "./groups.ts";
import type { LazyPart, LazyTableSteps } from "./lazy_table.ts";
import type { TrainingMemory } from "./memory.ts";
import type { MovementPart } from "./movement_part.ts";
import type { ParameterLayout } from "./parameters.ts";
import { type Stretch, stretchesOf, trainedNames } from "./stretches.ts";
import type { TrainingModel } from "./training_model.ts";

/**
 * What a program does with a batch:
 *
 * - `train`: forward, backward, update
 * - `begin`, `accumulate`: forward, backward; the gradients become, or are added to, their sums
 * - `gradient`: the same without dropout, for dense weights; the gradients stay where they are
 * - `evaluate`: forward without dropout
 */
export type StepMode = "train" | "begin" | "accumulate" | "gradient" | "evaluate";

/** Parameters that are not simply updated where they lie. */
export interface StepParts {
  readonly compact: CompactMatrices;
  /** Absent: the lookup table is updated whole. */
  readonly lazy?: LazyTableSteps;
  /** Absent: no masks follow scores. */
  readonly movement?: MovementPart;
}

/** What an update needs to know. */
export interface UpdateRequest {
  readonly target: Target;
  readonly layout: ParameterLayout;
  readonly memory: TrainingMemory;
  readonly parts: StepParts;
  readonly rule: UpdateRule;
  readonly groups: readonly ParameterGroup[];
  /** Largest global norm of the gradients; 0 leaves them as they are. */
  readonly maximumNorm: number;
  /** Where the plan's own memory begins. */
  readonly activations: number;
}

/** What to plan. */
export interface StepRequest extends UpdateRequest {
  readonly model: Pick<TrainingModel<never>, "build">;
  /** Columns and sequences of the batch, multiples of the tile. */
  readonly columns: number;
  readonly sequences: number;
  /** See `TrainerOptions`. */
  readonly checkpoints?: boolean;
}

/** Plans a step. Pure: addresses may be made up. */
export function planStep(mode: StepMode, request: StepRequest): Plan {
  const { model, target, layout, memory, parts, columns, sequences, activations } = request;
  // Gradients for their own sake are those of the dense weights.
  const compacted = mode === "gradient" ? new Map() : parts.compact.compacted;
  const graph = new Graph();
  const { loss, checkpoints } = model.build(graph, {
    columns,
    sequences,
    mode: mode === "evaluate" ? "evaluate" : "train",
    dropout: mode !== "evaluate" && mode !== "gradient",
    sparse: new Map(Array.from(compacted, ([name, { structure }]) => [name, structure])),
    transposed: new Map(
      Array.from(compacted, ([name, { transposed }]) => [name, transposed] as const)
        .filter((entry): entry is [string, PackedStructure] => entry[1] !== undefined),
    ),
  });
  graph.output("loss", loss);
  const bindings = new Map<Value, number>();
  for (const [name, value] of graph.parameters) {
    bindings.set(value, memory.weights + layout.slot(name).offset * 4);
  }
  const addresses = new Map(memory.inputs).set("seed", memory.seed);
  for (const [name, matrix] of compacted) {
    const names = sparseInputs(name);
    for (const key of Object.keys(names) as (keyof SparseInputs)[]) addresses.set(names[key], matrix[key]);
  }
  for (const [name, value] of graph.inputs) bindings.set(value, addresses.get(name)!);
  if (mode === "evaluate") return planGraph(graph, { target, bindings, base: activations });

  const gradients = differentiate(graph, loss, { checkpoints: request.checkpoints ? checkpoints : [] });
  const lazy = mode !== "train" ? undefined : parts.lazy?.extend(graph, gradients, bindings, {
    columns,
    clip: memory.norm + 4,
    workers: target.workers,
  });
  const trained = trainedNames(request.groups);
  for (const [name, gradient] of gradients) {
    if (!trained.has(name)) continue;
    graph.output(`gradient.${name}`, gradient);
    bindings.set(gradient, memory.gradients + layout.slot(name).offset * 4);
  }
  return planGraph(graph, {
    target,
    bindings,
    base: activations,
    prologue: lazy?.prologue,
    epilogue: epilogueOf(mode, request, lazy),
  });
}

/** The update of a step that several batches made the gradients of. */
export function planUpdate(request: UpdateRequest): Plan {
  const { target, activations, memory } = request;
  return planGraph(new Graph(), {
    target,
    bindings: new Map(),
    base: activations,
    epilogue: optimizerSteps(request, undefined, memory.gradientSums),
  });
}

function epilogueOf(mode: StepMode, request: StepRequest, lazy: LazyPart | undefined): Step[] {
  const { memory, target: { workers } } = request;
  if (mode === "train") return optimizerSteps(request, lazy, memory.gradients);
  if (mode === "gradient") return [];
  return accumulateSteps({
    ranges: stretchesIn(request, false).map(({ begin, count }) => ({
      address: memory.gradients + 4 * begin,
      count,
    })),
    distance: memory.gradientSums - memory.gradients,
    scale: memory.batchShare,
    begins: mode === "begin",
    workers,
  });
}

/** The global norm, then one fused pass over each stretch of parameters that are updated alike. */
function optimizerSteps(request: UpdateRequest, lazy: LazyPart | undefined, gradients: number): Step[] {
  const { memory, rule, target: { workers } } = request;
  const stretches = stretchesIn(request, lazy !== undefined);
  const clip = memory.norm + 4;
  const maskOf = ({ begin, masked }: Stretch) => masked ? memory.mask + begin / 8 : undefined;
  const gradientsOf = (stretch: Stretch): FlatRange => ({
    address: gradients + 4 * stretch.begin,
    count: stretch.count,
    mask: maskOf(stretch),
  });
  const norm = globalNormSteps({
    gradients: [...stretches.map(gradientsOf), ...(lazy ? [lazy.gradients] : [])],
    partials: memory.partials,
    result: memory.norm,
    maximumNorm: request.maximumNorm,
    workers,
  });
  const ranges = stretches.map((stretch): UpdateRange => ({
    weights: memory.weights + 4 * stretch.begin,
    states: memory.states.map((address) => address + 4 * stretch.begin),
    gradients: gradients + 4 * stretch.begin,
    mask: maskOf(stretch),
    scalars: memory.scalars[stretch.group],
    count: stretch.count,
  }));
  const update = updateSteps({ rule, ranges, clip, workers });
  const { before = [], after = [] } = request.parts.movement?.steps({ memory, gradients, workers }) ?? {};
  return [...before, ...norm, ...update, ...after, ...(lazy?.update ?? [])];
}

/** The stretches in a plan: a compact matrix is one of its own, a lazy table and what is frozen are in none. */
function stretchesIn(
  { layout, groups, parts: { compact, lazy } }: UpdateRequest,
  isLazy: boolean,
): Stretch[] {
  return stretchesOf(layout, groups, {
    compacted: compact.compacted,
    without: isLazy ? lazy?.name : undefined,
  });
}

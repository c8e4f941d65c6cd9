/**
 * The plan of one training or evaluation step: the model's graph, its gradients, and the optimiser.
 * @module
 */
import { buildBert, type SparseInputs, sparseInputs } from "../../models/bert.ts";
import type { BertConfig } from "../../models/config.ts";
import { differentiate } from "../graph/autodiff.ts";
import { Graph, type Value } from "../graph/graph.ts";
import type { Step, Target } from "../graph/operation.ts";
import { type AdamwRange, adamwSteps } from "../kernels/adamw/steps.ts";
import { type FlatRange, globalNormSteps } from "../kernels/global_norm/steps.ts";
import { type PackedStructure, valueCount } from "../kernels/sparse_matmul/pack.ts";
import { type Plan, planGraph } from "../plan/plan.ts";
import type { CompactMatrices } from "./compact.ts";
import type { LazyPart, LazyWords } from "./lazy_words.ts";
import type { TrainingMemory } from "./memory.ts";
import { isDecayed, type ParameterLayout, slotEnd } from "./parameters.ts";

/** AdamW's constants and the clipping threshold; the learning rate comes with each step. */
export interface OptimizerOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** Largest global gradient norm; 0 leaves gradients as they are. */
  readonly maximumNorm: number;
}

/** `train` changes the parameters, `evaluate` gives loss and logits. */
export type StepMode = "train" | "evaluate";

/** Parameters that are not simply updated where they lie. */
export interface StepParts {
  readonly compact: CompactMatrices;
  /** Absent: the word table is updated whole. */
  readonly lazy?: LazyWords;
}

/** What to plan. */
export interface StepRequest {
  readonly config: BertConfig;
  readonly target: Target;
  readonly layout: ParameterLayout;
  readonly memory: TrainingMemory;
  readonly parts: StepParts;
  readonly optimizer: OptimizerOptions;
  /** Columns and sequences of the batch, multiples of the tile. */
  readonly columns: number;
  readonly sequences: number;
  /** Where the plan's own memory begins. */
  readonly activations: number;
  /** See `TrainerOptions`. */
  readonly checkpoints?: boolean;
}

/** Plans a step. Pure: addresses may be made up. */
export function planStep(mode: StepMode, request: StepRequest): Plan {
  const { config, target, layout, memory, parts, columns, sequences, activations } = request;
  const { compacted } = parts.compact;
  const graph = new Graph();
  const { hidden, loss } = buildBert(graph, config, {
    columns,
    sequences,
    mode,
    sparse: new Map(Array.from(compacted, ([name, { structure }]) => [name, structure])),
    transposed: new Map(
      Array.from(compacted, ([name, { transposed }]) => [name, transposed] as const)
        .filter((entry): entry is [string, PackedStructure] => entry[1] !== undefined),
    ),
  });
  const bindings = new Map<Value, number>();
  for (const [name, value] of graph.parameters) {
    bindings.set(value, memory.weights + layout.slot(name).offset * 4);
  }
  const addresses = new Map<string, number>(Object.entries(memory));
  for (const [name, matrix] of compacted) {
    const names = sparseInputs(name);
    for (const key of Object.keys(names) as (keyof SparseInputs)[]) addresses.set(names[key], matrix[key]);
  }
  for (const [name, value] of graph.inputs) bindings.set(value, addresses.get(name)!);
  if (mode === "evaluate") return planGraph(graph, { target, bindings, base: activations });

  const checkpoints = request.checkpoints ? hidden.slice(0, -1) : [];
  const gradients = differentiate(graph, loss!, { checkpoints });
  const lazy = parts.lazy?.extend(graph, gradients, bindings, {
    columns,
    clip: memory.norm + 4,
    workers: target.workers,
  });
  for (const [name, gradient] of gradients) {
    graph.output(`gradient.${name}`, gradient);
    bindings.set(gradient, memory.gradients + layout.slot(name).offset * 4);
  }
  return planGraph(graph, {
    target,
    bindings,
    base: activations,
    prologue: lazy?.prologue,
    epilogue: optimizerSteps(request, lazy),
  });
}

/** The global norm, then one fused pass over each stretch of parameters that are updated alike. */
function optimizerSteps(
  { layout, memory, parts, optimizer, target: { workers } }: StepRequest,
  lazy: LazyPart | undefined,
): Step[] {
  const stretches = stretchesOf(layout, parts, lazy !== undefined);
  const clip = memory.norm + 4;
  const maskOf = ({ begin, masked }: Stretch) => masked ? memory.mask + begin / 8 : undefined;
  const gradientsOf = (stretch: Stretch): FlatRange => ({
    address: memory.gradients + 4 * stretch.begin,
    count: stretch.count,
    mask: maskOf(stretch),
  });
  const norm = globalNormSteps({
    gradients: [...stretches.map(gradientsOf), ...(lazy ? [lazy.gradients] : [])],
    partials: memory.partials,
    result: memory.norm,
    maximumNorm: optimizer.maximumNorm,
    workers,
  });
  const ranges = stretches.map((stretch): AdamwRange => ({
    weights: memory.weights + 4 * stretch.begin,
    gradients: memory.gradients + 4 * stretch.begin,
    firstMoment: memory.firstMoment + 4 * stretch.begin,
    secondMoment: memory.secondMoment + 4 * stretch.begin,
    mask: maskOf(stretch),
    scalars: stretch.decay ? memory.scalars : memory.scalarsWithoutDecay,
    count: stretch.count,
  }));
  return [...norm, ...adamwSteps({ ranges, clip, workers }), ...(lazy?.update ?? [])];
}

/** Parameters one after the other that are updated alike. */
interface Stretch {
  readonly begin: number;
  count: number;
  readonly decay: boolean;
  readonly masked: boolean;
}

/** The stretches of the flat range: a compact matrix is one of its own, a lazy word table none. */
function stretchesOf(layout: ParameterLayout, { compact }: StepParts, isLazy: boolean): Stretch[] {
  const stretches: Stretch[] = [];
  let isOpen = false;
  for (const slot of layout.slots) {
    const matrix = compact.compacted.get(slot.name);
    const decay = isDecayed(slot.name);
    if (matrix) {
      const count = valueCount(matrix.structure);
      stretches.push({ begin: slot.offset, count, decay, masked: false });
      isOpen = false;
    } else if (isLazy && slot === layout.words) {
      isOpen = false;
    } else {
      const masked = compact.places.has(slot.name);
      const last = stretches.at(-1);
      if (isOpen && last && last.decay === decay && last.masked === masked) {
        last.count = slotEnd(slot) - last.begin;
      } else stretches.push({ begin: slot.offset, count: slotEnd(slot) - slot.offset, decay, masked });
      isOpen = true;
    }
  }
  return stretches;
}

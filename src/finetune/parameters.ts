/**
 * All parameters of a model in one flat range, ordered so that the optimiser makes one pass with few cases:
 * prunable matrices first (decay and mask), then the other decayed weights, then biases and LayerNorm (no decay).
 * @module
 */
import { elementCount, Graph } from "../graph/graph.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import { type RandomKey, randomKey, RandomStream } from "../core/random.ts";
import type { TrainingModel } from "./training_model.ts";

/** One parameter's place in the flat range. */
export interface ParameterSlot {
  /** Checkpoint name. */
  readonly name: string;
  readonly shape: readonly number[];
  /** First element. */
  readonly offset: number;
  readonly length: number;
}

/** Where every parameter lies. Lengths are padded to 64 elements, so that mask words and vectors never straddle. */
export interface ParameterLayout {
  readonly slots: readonly ParameterSlot[];
  /** Elements in the flat range, padding included. */
  readonly length: number;
  /** The first so many of them are prunable matrices. */
  readonly prunableLength: number;
  /** The place of a parameter. Throws for a name there is none of. */
  slot(name: string): ParameterSlot;
}

const slotElements = 64;

const wordEmbeddings = "bert.embeddings.word_embeddings.weight";

/** Where the next parameter begins. */
export function slotEnd({ offset, length }: ParameterSlot): number {
  return offset + Math.ceil(length / slotElements) * slotElements;
}

/** Biases and LayerNorm are not decayed, as in Devlin et al.'s BERT and the Hugging Face trainer. */
export function isDecayed(name: string): boolean {
  return !name.endsWith(".bias") && !name.includes("LayerNorm");
}

/** Lays out the parameters of a graph. */
function layoutParameters(graph: Graph): ParameterLayout {
  const kinds = [
    { decay: true, prunable: true },
    { decay: true, prunable: false },
    { decay: false, prunable: false },
  ];
  const slots: ParameterSlot[] = [];
  let [length, prunableLength] = [0, 0];
  for (const kind of kinds) {
    for (const [name, { type }] of graph.parameters) {
      if (isPrunable(name) !== kind.prunable || isDecayed(name) !== kind.decay) continue;
      const slot = { name, shape: type.shape, offset: length, length: elementCount(type) };
      slots.push(slot);
      length = slotEnd(slot);
    }
    if (kind.prunable) prunableLength = length;
  }
  const byName = new Map(slots.map((slot) => [slot.name, slot]));
  const slot = (name: string) => {
    const found = byName.get(name);
    if (!found) throw new RangeError(`Cannot place ${name}: the model has no such parameter`);
    return found;
  };
  return { slots, length, prunableLength, slot };
}

/** The layout of a model's parameters, from its graph. */
export function parameterLayoutOf<Example>(model: TrainingModel<Example>): ParameterLayout {
  const graph = new Graph();
  model.build(graph, { columns: 1, sequences: 1, mode: "evaluate", dropout: false });
  return layoutParameters(graph);
}

/** Fills one parameter of BERT as Hugging Face does: matrices and embeddings normal(0, range), LayerNorm 1 and 0, biases 0.
 *  The embedding of the padding token is 0. */
export function initialiseParameter(
  slot: ParameterSlot,
  target: Float32Array,
  options: { range: number; seed: number; padTokenId: number },
): void {
  if (slot.name.endsWith("LayerNorm.weight")) {
    target.fill(1);
  } else if (slot.name.endsWith(".bias")) {
    target.fill(0);
  } else {
    const key: RandomKey = randomKey(options.seed, "initialise", slot.name);
    const stream = new RandomStream(key);
    for (let i = 0; i < target.length; i++) target[i] = options.range * stream.normal();
    if (slot.name === wordEmbeddings) {
      const width = slot.shape[1];
      target.fill(0, options.padTokenId * width, (options.padTokenId + 1) * width);
    }
  }
}

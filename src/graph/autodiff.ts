/**
 * Reverse-mode differentiation as a graph transformation: forward graph in, forward + backward graph out.
 *
 * Each operation says how its gradient is made of other operations (`Operation.gradient`); this file only walks
 * the nodes backwards and adds up the contributions of values that are used more than once. With checkpoints it also
 * adds parts of the forward pass a second time, so that their results need not be kept.
 * @module
 */
import { add } from "../kernels/add/operation.ts";
import type { Graph, Node, Value } from "./graph.ts";

/** How the backward pass gets what it needs of the forward pass. */
export interface DifferentiateOptions {
  /**
   * Results of the forward pass that stay in memory until the backward pass has come by, with the other results of
   * their nodes. What lies between two of them does not: each stretch of the forward nodes that ends with a checkpoint
   * is run once more, as far as gradients need it, when the gradient has reached that checkpoint. The stretch after the
   * last one is kept as it is.
   *
   * For an encoder: all hidden states but the last. Memory falls to one layer's activations and two states per layer
   * (the last LayerNorm's result and sum); the price is two thirds of another forward pass. Gradients keep their bits:
   * the nodes that run again have the same operands and attributes, and so the same dropout.
   */
  readonly checkpoints?: readonly Value[];
}

/**
 * Adds to `graph` the gradients of `loss` with respect to its parameters.
 *
 * `loss` must be a scalar whose operation is its own root (`softmaxCrossEntropy`, `meanSquaredError`): its upstream
 * gradient is 1. Returns one value per parameter the loss depends on, by checkpoint name, with the parameter's type.
 * Throws a TypeError when `loss` or a checkpoint is not a result of the graph, or a node has no gradient rule.
 */
export function differentiate(
  graph: Graph,
  loss: Value,
  { checkpoints = [] }: DifferentiateOptions = {},
): Map<string, Value> {
  const root = producerOf(graph, loss, "differentiate");
  const gradients = new Map<number, Value>();
  const accumulate = (value: Value, contribution: Value) => {
    const sum = gradients.get(value.id);
    gradients.set(value.id, sum ? graph.apply(add, {}, [sum, contribution])[0] : contribution);
  };

  for (const { nodes, end } of segmentsOf(graph, root, checkpoints).reverse()) {
    const reached = end && gradients.get(end.id);
    const again = reached ? runAgain(graph, nodes, reached) : new Map<Node, Node>();
    for (const node of nodes.toReversed()) {
      const outputGradients = node.outputs.map((output) => gradients.get(output.id));
      if (node !== root && outputGradients.every((gradient) => gradient === undefined)) continue;
      if (!node.operation.gradient) {
        throw new TypeError(`Cannot differentiate ${node.operation.name}: it has no gradient rule`);
      }
      const inputGradients = node.operation.gradient({
        graph,
        node: again.get(node) ?? node,
        outputGradients,
      });
      node.inputs.forEach((input, index) => {
        const gradient = inputGradients[index];
        if (input && gradient) accumulate(input, gradient);
      });
    }
  }

  const result = new Map<string, Value>();
  for (const [name, parameter] of graph.parameters) {
    const gradient = gradients.get(parameter.id);
    if (gradient) result.set(name, gradient);
  }
  return result;
}

function producerOf(graph: Graph, value: Value, purpose: string): Node {
  const node = graph.producer(value);
  if (!node) throw new TypeError(`Cannot ${purpose} ${value.name}: it is not the result of an operation`);
  return node;
}

/** A stretch of the forward nodes, in order. */
interface Segment {
  readonly nodes: readonly Node[];
  /** The checkpoint it ends with; the last stretch has none. */
  readonly end?: Value;
}

/** Cuts the nodes up to the root after the producer of each checkpoint. */
function segmentsOf(graph: Graph, root: Node, checkpoints: readonly Value[]): Segment[] {
  const segments: Segment[] = [];
  let begin = 0;
  const cuts = checkpoints.map((end) => ({ end, node: producerOf(graph, end, "checkpoint") }));
  for (const { end, node } of cuts.sort((a, b) => a.node.id - b.node.id)) {
    segments.push({ nodes: graph.nodes.slice(begin, node.id + 1), end });
    begin = node.id + 1;
  }
  if (begin > root.id) throw new TypeError("Cannot checkpoint: wanted values that the loss comes after");
  return [...segments, { nodes: graph.nodes.slice(begin, root.id + 1) }];
}

/**
 * Adds the nodes of a stretch a second time, to start when `reached` is there: the gradient of the stretch's end.
 * They read each other, and what comes from outside the stretch as the originals do. The last node, whose results are
 * kept, only gets its operands from them.
 */
function runAgain(graph: Graph, nodes: readonly Node[], reached: Value): Map<Node, Node> {
  const again = new Map<Node, Node>();
  const copies = new Map<number, Value>();
  for (const node of nodes) {
    const inputs = node.inputs.map((input) => input && (copies.get(input.id) ?? input));
    if (node === nodes.at(-1)) {
      again.set(node, { ...node, inputs });
    } else {
      const outputs = graph.apply(node.operation, node.attributes, inputs, reached);
      node.outputs.forEach((output, index) => copies.set(output.id, outputs[index]));
      again.set(node, graph.producer(outputs[0])!);
    }
  }
  return again;
}

/** The nodes that the graph's outputs depend on, in order. Everything else need not run. */
export function liveNodes(graph: Graph): Node[] {
  const needed = new Set(Array.from(graph.outputs.values(), (value) => value.id));
  const live: Node[] = [];
  for (const node of graph.nodes.toReversed()) {
    if (!node.outputs.some((output) => needed.has(output.id))) continue;
    live.push(node);
    for (const input of node.inputs) if (input) needed.add(input.id);
  }
  return live.reverse();
}

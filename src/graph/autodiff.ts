/**
 * Reverse-mode differentiation as a graph transformation: forward graph in, forward + backward graph out.
 *
 * Each operation says how its gradient is made of other operations (`Operation.gradient`); this file only walks
 * the nodes backwards and adds up the contributions of values that are used more than once.
 * @module
 */
import { add } from "../kernels/add/operation.ts";
import type { Graph, Node, Value } from "./graph.ts";

/**
 * Adds to `graph` the gradients of `loss` with respect to its parameters.
 *
 * `loss` must be a scalar whose operation is its own root (`softmaxCrossEntropy`): its upstream gradient is 1.
 * Returns one value per parameter the loss depends on, by checkpoint name, with the parameter's type.
 */
export function differentiate(graph: Graph, loss: Value): Map<string, Value> {
  const root = graph.producer(loss);
  if (!root) throw new TypeError(`Cannot differentiate ${loss.name}: it is not the result of an operation`);
  const gradients = new Map<number, Value>();
  const accumulate = (value: Value, contribution: Value) => {
    const sum = gradients.get(value.id);
    gradients.set(value.id, sum ? graph.apply(add, {}, [sum, contribution])[0] : contribution);
  };

  for (const node of graph.nodes.slice(0, root.id + 1).reverse()) {
    const outputGradients = node.outputs.map((output) => gradients.get(output.id));
    if (node !== root && outputGradients.every((gradient) => gradient === undefined)) continue;
    if (!node.operation.gradient) {
      throw new TypeError(`Cannot differentiate ${node.operation.name}: it has no gradient rule`);
    }
    const inputGradients = node.operation.gradient({ graph, node, outputGradients });
    node.inputs.forEach((input, index) => {
      const gradient = inputGradients[index];
      if (input && gradient) accumulate(input, gradient);
    });
  }

  const result = new Map<string, Value>();
  for (const [name, parameter] of graph.parameters) {
    const gradient = gradients.get(parameter.id);
    if (gradient) result.set(name, gradient);
  }
  return result;
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

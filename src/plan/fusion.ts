/**
 * Rewrites that save a pass over memory without changing a result.
 * @module
 */
import type { Node, Value } from "../graph/graph.ts";
import { matmul, type MatmulAttributes } from "../kernels/matmul/operation.ts";

/**
 * add(matmul(x, W), r) becomes matmul(x, W, addend r), when nothing else reads the product.
 *
 * Backward graphs are full of it: a hidden state feeds query, key, value and the residual, so its gradient is a
 * sum of four terms, three of them products. The rewritten node stands where the sum stood.
 */
export function fuseAddIntoMatmul(nodes: readonly Node[], outputs: Iterable<Value>): Node[] {
  const uses = new Map<number, number>();
  const countUse = (value: Value) => uses.set(value.id, (uses.get(value.id) ?? 0) + 1);
  for (const value of outputs) countUse(value);
  for (const node of nodes) for (const input of node.inputs) if (input) countUse(input);

  const producer = new Map<number, Node>();
  const removed = new Set<Node>();
  const rewritten = nodes.map((node) => {
    let result = node;
    if (node.operation.name === "add") {
      const [a, b] = node.inputs as [Value, Value];
      // The later contribution is the right operand; prefer it, so that the sum is formed in the same order.
      for (const [product, addend] of [[b, a], [a, b]]) {
        const source = producer.get(product.id);
        if (source && !removed.has(source) && uses.get(product.id) === 1 && acceptsAddend(source)) {
          removed.add(source);
          result = { ...source, inputs: [...source.inputs.slice(0, 3), addend], outputs: node.outputs };
          break;
        }
      }
    }
    for (const output of result.outputs) producer.set(output.id, result);
    return result;
  });
  return rewritten.filter((node) => !removed.has(node));
}

function acceptsAddend(node: Node): boolean {
  return node.operation.name === matmul.name && node.inputs[3] === undefined &&
    (node.attributes as MatmulAttributes).activation === "none";
}

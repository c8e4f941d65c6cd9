/**
 * Rewrites that save a pass over memory without changing a result.
 * @module
 */
import type { Node, Value } from "../graph/graph.ts";
import { matmul } from "../kernels/matmul/operation.ts";
import type { Activation } from "../kernels/matmul/reference.ts";
import { sparseMatmulInputGradient } from "../kernels/sparse_matmul/gradient.ts";
import { sparseMatmul } from "../kernels/sparse_matmul/operation.ts";

/** Operations that can add to what they compute, and the operand that they add. */
const addendOperands: ReadonlyMap<string, number> = new Map([
  [matmul.name, 3],
  [sparseMatmul.name, 4],
  [sparseMatmulInputGradient.name, 3],
]);

/**
 * add(matmul(x, W), r) becomes matmul(x, W, addend r), when nothing else reads the product; so do sparse products.
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
          const operand = addendOperands.get(source.operation.name)!;
          const length = Math.max(source.inputs.length, operand + 1);
          const inputs = Array.from({ length }, (_, i) => i === operand ? addend : source.inputs[i]);
          result = { ...source, inputs, outputs: node.outputs };
          break;
        }
      }
    }
    for (const output of result.outputs) producer.set(output.id, result);
    return result;
  });
  return rewritten.filter((node) => !removed.has(node));
}

function acceptsAddend({ operation, inputs, attributes }: Node): boolean {
  const operand = addendOperands.get(operation.name);
  if (operand === undefined || inputs[operand] !== undefined) return false;
  const { activation } = attributes as { readonly activation?: Activation };
  return activation === undefined || activation === "none";
}

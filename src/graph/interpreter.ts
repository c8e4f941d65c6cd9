/**
 * Runs a graph through the operations' references: slow, obvious, and the answer everything else is checked against.
 *
 * Tiled values are given and returned plain, row-major [features, columns]. Fed with Float64Arrays, the references
 * compute in float64.
 * @module
 */
import { describeType, elementCount, type Graph, type Value } from "./graph.ts";
import type { NumberArray } from "./operation.ts";

/**
 * Evaluates every node. `feeds` holds the parameters and inputs by name.
 * Gives the array of every value, fed ones included, by value id.
 */
export function interpret(
  graph: Graph,
  feeds: ReadonlyMap<string, NumberArray>,
): Map<number, NumberArray> {
  const arrays = new Map<number, NumberArray>();
  const store = (value: Value, array: NumberArray | undefined) => {
    if (array?.length !== elementCount(value.type)) {
      throw new TypeError(
        `Cannot interpret ${value.name}: found ${array ? `${array.length} elements` : "no array"}, ` +
          `wanted ${describeType(value.type)}`,
      );
    }
    arrays.set(value.id, array);
  };
  for (const value of [...graph.parameters.values(), ...graph.inputs.values()]) {
    store(value, feeds.get(value.name));
  }
  for (const { operation, attributes, inputs, outputs } of graph.nodes) {
    const results = operation.reference(inputs.map((value) => value && arrays.get(value.id)), {
      attributes,
      inputTypes: inputs.map((value) => value?.type),
      outputTypes: outputs.map((value) => value.type),
    });
    outputs.forEach((value, index) => store(value, results[index]));
  }
  return arrays;
}

/**
 * Checks gradient rules against central differences of the reference, in float64: for tests.
 * @module
 */
import { randomKey, RandomStream } from "../core/random.ts";
import { elementCount, Graph, type Node, sameType, type ValueType } from "../graph/graph.ts";
import { interpret } from "../graph/interpreter.ts";
import type { NumberArray, Operation } from "../graph/operation.ts";
import { elementName, type OperationInputs } from "./operands.ts";

/** What to differentiate. All f32 inputs are perturbed. */
export interface DifferenceCheck<A> extends OperationInputs<A> {
  /** Seed of the random upstream gradient. */
  readonly seed: number;
  /** Upstream gradient per output; absent: random for output 0, none for the others. */
  readonly upstream?: readonly (Float64Array | undefined)[];
  /** |rule − difference| ≤ tolerance · (1 + |difference|); 1e-6 unless told. */
  readonly tolerance?: number;
}

/**
 * Checks an operation's gradient rule: its nodes, run through the references in float64, against central differences
 * (f(x + h) − f(x − h)) / 2h of L = Σ upstream · output with h = 1e-5. An input the rule gives no gradient must have none.
 */
export function centralDifferences<A>(operation: Operation<A>, check: DifferenceCheck<A>): void {
  const { attributes, inputTypes, seed, tolerance = 1e-6 } = check;
  const where = `Gradient of ${operation.name}, seed ${seed}`;
  if (!operation.gradient) throw new TypeError(`${where}: the operation has no gradient rule`);
  const inputs = check.inputs.map((array, index) =>
    array && inputTypes[index]?.dtype === "f32" ? Float64Array.from(array) : array
  );
  const graph = new Graph();
  const feeds = new Map<string, NumberArray>();
  const declare = (name: string, type: ValueType, array: NumberArray) => {
    feeds.set(name, array);
    return graph.input(name, type);
  };
  const values = inputTypes.map((type, index) => type && declare(`input${index}`, type, inputs[index]!));
  const outputs = graph.apply(operation, attributes, values);
  const outputTypes = outputs.map((value) => value.type);

  const random = new RandomStream(randomKey(seed, operation.name, "upstream"));
  const upstream = check.upstream ??
    [Float64Array.from({ length: elementCount(outputTypes[0]) }, () => random.normal())];
  const outputGradients = outputTypes.map((type, index) =>
    upstream[index] && declare(`upstream${index}`, type, upstream[index])
  );
  const node = graph.nodes[0] as Node<A>;
  const gradients = operation.gradient({ graph, node, outputGradients });
  const arrays = interpret(graph, feeds);

  const loss = () => {
    const results = operation.reference(inputs, { attributes, inputTypes, outputTypes });
    return upstream.reduce(
      (sum, gradient, output) =>
        sum + (gradient?.reduce((part, value, index) => part + value * results[output][index], 0) ?? 0),
      0,
    );
  };
  const step = 1e-5;
  inputs.forEach((array, input) => {
    const type = inputTypes[input];
    if (!array || type?.dtype !== "f32") return;
    const gradient = gradients[input];
    if (gradient && !sameType(gradient.type, type)) {
      throw new Error(`${where}: input ${input} has another type than its gradient`);
    }
    for (let index = 0; index < array.length; index++) {
      const value = array[index];
      array[index] = value + step;
      const above = loss();
      array[index] = value - step;
      const below = loss();
      array[index] = value;
      const wanted = (above - below) / (2 * step);
      const found = gradient ? arrays.get(gradient.id)![index] : 0;
      if (!(Math.abs(found - wanted) <= tolerance * (1 + Math.abs(wanted)))) {
        throw new Error(
          `${where}: ${elementName(index, type)} of input ${input} is ${found} by the rule, ` +
            `${wanted} by central differences`,
        );
      }
    }
  });
}

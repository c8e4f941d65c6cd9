/**
 * The sum of two values of one type: residual gradients, and parameters that are used twice.
 * @module
 */
import type { NumberArray, Operation } from "../../graph/operation.ts";
import { elementwiseKernel, inferElementwise, lowerElementwise, mapElements } from "./elementwise.ts";

const kernel = elementwiseKernel({
  key: "add_f32",
  operands: 2,
  unroll: 4,
  emit: (vm, d, a, b) => vm.add(d, a, b!),
});

/** a + b, for operands of one f32 type in any layout. */
export const add: Operation<Record<string, never>> = {
  name: "add",
  infer: (inputs) => inferElementwise("add", 2, inputs),
  reference: ([a, b]): NumberArray[] => [mapElements((x, y) => x + y, a!, b!)],
  gradient: ({ outputGradients: [gradient] }) => [gradient, gradient],
  inPlace: [[0, 0], [1, 0]],
  lower: ({ inputs, outputs, target }) => lowerElementwise(kernel, inputs, outputs[0], target.workers),
};

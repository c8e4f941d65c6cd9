/**
 * GELU (Hendrycks and Gimpel, arXiv 1606.08415) in its exact form: x · Φ(x), with Φ from the error function.
 * @module
 */
import type { NumberArray, Operation } from "../../graph/operation.ts";
import { elementwiseKernel, inferElementwise, lowerElementwise, mapElements } from "../add/elementwise.ts";
import { emitGelu, emitGeluDerivative } from "../emit_math.ts";
import { gelu as geluOf, geluDerivative } from "./reference.ts";

const kernel = elementwiseKernel({ key: "gelu_f32", operands: 1, unroll: 1, emit: emitGelu });

const gradientKernel = elementwiseKernel({
  key: "gelu_gradient_f32",
  operands: 2,
  unroll: 1,
  emit(vm, d, gradY, x) {
    emitGeluDerivative(vm, x!, x!);
    vm.multiply(d, gradY, x!);
  },
});

/** y = x · Φ(x). Infinities: +∞ gives +∞, −∞ gives NaN, as the formula does. */
export const gelu: Operation<Record<string, never>> = {
  name: "gelu",
  infer: (inputs) => inferElementwise("gelu", 1, inputs),
  reference: ([x]): NumberArray[] => [mapElements(geluOf, x!)],
  gradient: ({ graph, node, outputGradients: [gradY] }) => [
    gradY && graph.apply(geluGradient, {}, [gradY, node.inputs[0]])[0],
  ],
  inPlace: [[0, 0]],
  lower: ({ inputs, outputs, target }) => lowerElementwise(kernel, inputs, outputs[0], target.workers),
};

/** gradX = gradY · (Φ(x) + x·φ(x)) of operands (gradY, x). */
export const geluGradient: Operation<Record<string, never>> = {
  name: "geluGradient",
  infer: (inputs) => inferElementwise("geluGradient", 2, inputs),
  reference: ([gradY, x]): NumberArray[] => [
    mapElements((gradient, value) => gradient * geluDerivative(value), gradY!, x!),
  ],
  inPlace: [[0, 0], [1, 0]],
  lower: ({ inputs, outputs, target }) =>
    lowerElementwise(gradientKernel, inputs, outputs[0], target.workers),
};

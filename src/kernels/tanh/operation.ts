/**
 * The hyperbolic tangent: the activation of BERT's pooler.
 * @module
 */
import type { NumberArray, Operation } from "../../graph/operation.ts";
import { elementwiseKernel, inferElementwise, lowerElementwise, mapElements } from "../add/elementwise.ts";
import { emitTanh } from "../emit_math.ts";

const kernel = elementwiseKernel({ key: "tanh_f32", operands: 1, unroll: 1, emit: emitTanh });

const gradientKernel = elementwiseKernel({
  key: "tanh_gradient_f32",
  operands: 2,
  unroll: 1,
  emit(vm, d, gradY, y) {
    const slope = vm.vector();
    vm.constantF32(slope, 1);
    vm.fmaNegated(slope, y!, y!);
    vm.multiply(d, gradY, slope);
    vm.free(slope);
  },
});

/** y = tanh(x). */
export const tanh: Operation<Record<string, never>> = {
  name: "tanh",
  infer: (inputs) => inferElementwise("tanh", 1, inputs),
  reference: ([x]): NumberArray[] => [mapElements(Math.tanh, x!)],
  gradient: ({ graph, node, outputGradients: [gradY] }) => [
    gradY && graph.apply(tanhGradient, {}, [gradY, node.outputs[0]])[0],
  ],
  inPlace: [[0, 0]],
  lower: ({ inputs, outputs, target }) => lowerElementwise(kernel, inputs, outputs[0], target.workers),
};

/** gradX = gradY · (1 − y²) of operands (gradY, y): the result is kept, the argument is not needed. */
export const tanhGradient: Operation<Record<string, never>> = {
  name: "tanhGradient",
  infer: (inputs) => inferElementwise("tanhGradient", 2, inputs),
  reference: ([gradY, y]): NumberArray[] => [
    mapElements((gradient, value) => gradient * (1 - value * value), gradY!, y!),
  ],
  inPlace: [[0, 0], [1, 0]],
  lower: ({ inputs, outputs, target }) =>
    lowerElementwise(gradientKernel, inputs, outputs[0], target.workers),
};

/** The encoder's backward pass against central differences, and its starting values. */
import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../../core/random.ts";
import { encoderOutputs, GroupEncoder } from "./encoder.ts";

const shape = { width: 6, heads: 2, layers: 2, feedForward: 5 };

function normals(length: number, name: string): Float64Array {
  const stream = new RandomStream(randomKey(7, name));
  return Float64Array.from({ length }, () => stream.normal());
}

for (const tokens of [1, 4]) {
  Deno.test(`GroupEncoder's gradients are central differences, of ${tokens} tokens`, () => {
    const encoder = new GroupEncoder(shape);
    const parameters = new Float64Array(encoder.parameterCount);
    encoder.initialise(parameters, 3, false);
    // Biases and scales off their starting values, so that each has a gradient of its own.
    normals(parameters.length, "shift").forEach((value, i) => parameters[i] += 0.1 * value);
    const x = normals(tokens * shape.width, "x");
    const upstream = normals(tokens * encoderOutputs, "upstream");
    const loss = () =>
      encoder.forward(parameters, x).raw.reduce((sum, value, i) => sum + value * upstream[i], 0);
    const gradients = new Float64Array(parameters.length);
    const gradX = encoder.backward(parameters, encoder.forward(parameters, x), upstream, gradients);
    const check = (array: Float64Array, found: Float64Array, nameOf: (index: number) => string) => {
      for (let i = 0; i < array.length; i++) {
        const value = array[i];
        const h = 1e-5;
        array[i] = value + h;
        const above = loss();
        array[i] = value - h;
        const below = loss();
        array[i] = value;
        const wanted = (above - below) / (2 * h);
        assert.ok(
          Math.abs(found[i] - wanted) <= 1e-7 * (1 + Math.abs(wanted)),
          `${nameOf(i)} is ${found[i]} by the backward pass, ${wanted} by central differences`,
        );
      }
    };
    check(
      parameters,
      gradients,
      (i) => encoder.tensors.findLast(({ offset }) => offset <= i)!.name + ` (${i})`,
    );
    check(x, gradX, (i) => `token ${i}`);
  });
}

Deno.test("GroupEncoder starts with Xavier's bounds, or with outputs of zero", () => {
  const encoder = new GroupEncoder(shape);
  const parameters = new Float64Array(encoder.parameterCount);
  encoder.initialise(parameters, 1, false);
  for (const { name, shape: sizes, offset, length } of encoder.tensors) {
    const values = parameters.subarray(offset, offset + length);
    const largest = Math.max(...values.map(Math.abs));
    if (sizes.length === 1) assert.equal(largest, name.endsWith("Norm.weight") ? 1 : 0, name);
    else {
      const bound = Math.sqrt(6 / (sizes[0] + sizes[1]));
      assert.ok(largest <= bound && largest > 0.7 * bound, `${name}: ${largest} of ${bound}`);
    }
  }
  const x = normals(3 * shape.width, "x");
  assert.ok(encoder.forward(parameters, x).raw.some((value) => Math.abs(value) > 0.1));
  encoder.initialise(parameters, 1, true);
  assert.ok(encoder.forward(parameters, x).raw.every((value) => value === 0));
});

Deno.test("GroupEncoder treats groups alike: tokens in another order come out in that order", () => {
  const encoder = new GroupEncoder(shape);
  const parameters = new Float64Array(encoder.parameterCount);
  encoder.initialise(parameters, 2, false);
  const x = normals(2 * shape.width, "x");
  const swapped = Float64Array.from([...x.subarray(shape.width), ...x.subarray(0, shape.width)]);
  const [one, other] = [encoder.forward(parameters, x).raw, encoder.forward(parameters, swapped).raw];
  for (let i = 0; i < one.length; i++) assert.ok(Math.abs(one[i] - other[(i + 4) % 8]) < 1e-12);
});

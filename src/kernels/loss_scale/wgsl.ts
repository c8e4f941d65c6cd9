/**
 * The scale of the loss on the GPU. It never leaves the device while steps are taken.
 * @module
 */
import type { BufferRange, ShaderCall, ShaderTarget } from "../shader.ts";
import { f32Literal } from "../wgsl_math.ts";
import { callShader, workgroupSize, writeShader } from "../wgsl_shader.ts";
import { largestLossScale, type LossScale, smallestLossScale, stepsToGrow } from "./reference.ts";

/** Bytes of a scale on the device: an f32, and the good steps as u32. */
export const lossScaleBytes = 8;

const multiply = writeShader({
  key: "scale_f32",
  reads: { values: "array<f32>", factor: "array<f32>" },
  writes: { result: "array<f32>" },
  sizes: { count: "u32" },
  main: `
  let i = group * ${workgroupSize}u + lane;
  if (i < sizes.count) { result[i] = values[i] * factor[0]; }`,
});

/** result[i] = values[i] · factor. */
export function scaleCall(
  { values, factor, result, count, target }: {
    readonly values: BufferRange;
    /** f32 */
    readonly factor: BufferRange;
    readonly result: BufferRange;
    readonly count: number;
    readonly target: ShaderTarget;
  },
): ShaderCall {
  return callShader(multiply, [values, factor, result], [count], Math.ceil(count / workgroupSize), target);
}

/** Bits are compared: no compiler takes them for numbers that cannot be NaN. */
const advance = writeShader({
  key: "loss_scale",
  workgroupSize: 1,
  reads: { norm: "array<u32>" },
  writes: { state: "array<u32>" },
  sizes: {},
  main: `
  let scale = bitcast<f32>(state[0]);
  let goodSteps = state[1] + 1u;
  if ((norm[0] & 0x7f800000u) == 0x7f800000u) {
    state[0] = bitcast<u32>(max(0.5 * scale, ${f32Literal(smallestLossScale)}));
    state[1] = 0u;
  } else if (goodSteps >= ${stepsToGrow}u) {
    state[0] = bitcast<u32>(min(2.0 * scale, ${f32Literal(largestLossScale)}));
    state[1] = 0u;
  } else {
    state[1] = goodSteps;
  }`,
});

/** Makes the scale of the next step from whether the norm of this one is finite, as `nextLossScale` does. */
export function nextLossScaleCall(
  { norm, state, target }: {
    /** f32 */
    readonly norm: BufferRange;
    /** `lossScaleBytes` long. */
    readonly state: BufferRange;
    readonly target: ShaderTarget;
  },
): ShaderCall {
  return callShader(advance, [norm, state], [], 1, target);
}

/** What the device holds for a scale. */
export function lossScaleWords({ scale, goodSteps }: LossScale): Uint32Array {
  const [bits] = new Uint32Array(Float32Array.of(scale).buffer);
  return Uint32Array.of(bits, goodSteps);
}

/** The scale that the device holds. */
export function lossScaleOf(words: Uint32Array): LossScale {
  const [scale] = new Float32Array(Uint32Array.of(words[0]).buffer);
  return { scale, goodSteps: words[1] };
}

/**
 * Where values lie in buffers, and what a call may bind.
 * @module
 */
import { UnsupportedError } from "../core/errors.ts";
import { byteLength, describeType, elementCount, type ValueType } from "../graph/graph.ts";
import type { BufferRange, ShaderCall, ShaderOperand, ShaderTarget } from "../kernels/shader.ts";
import { alignUp } from "../plan/memory.ts";

/** Ranges begin at multiples of this: the strictest alignment that WebGPU allows a device to ask for. */
export const rangeGrain = 256;

/** Bytes of a value in device memory: whole words. */
export function storedBytes({ type, element }: Pick<ShaderOperand, "type" | "element">): number {
  return element === "f16" ? alignUp(2 * elementCount(type), 4) : byteLength(type);
}

/** What the elements of a result lie in on a target. */
export function elementOf({ dtype, layout }: ValueType, { activations }: ShaderTarget): "f16" | undefined {
  return dtype === "f32" && layout === "tiled" ? activations : undefined;
}

/**
 * A value in a buffer from `byteOffset` on, a multiple of 256. `rows` values that are larger than a binding come in parts of as
 * many rows as fit. @throws UnsupportedError for another value that is larger than a binding: it begins with `name`.
 */
export function operandAt(
  name: string,
  type: ValueType,
  { buffer, byteOffset = 0 }: { readonly buffer: number; readonly byteOffset?: number },
  { maxBindingBytes }: ShaderTarget,
  element?: ShaderOperand["element"],
): ShaderOperand {
  const total = storedBytes({ type, element });
  const rowCount = type.shape[0] ?? 1;
  const stored = element && { element };
  if (total <= maxBindingBytes) {
    return { type, ...stored, parts: [{ buffer, byteOffset, byteLength: total }], rowsPerPart: rowCount };
  }
  const rowBytes = total / rowCount;
  let grain = 1; // Rows that end at a multiple of `rangeGrain`: a part must begin at one.
  while (grain * rowBytes % rangeGrain !== 0) grain *= 2;
  const rowsPerPart = Math.floor(maxBindingBytes / (grain * rowBytes)) * grain;
  if (type.layout === "tiled" || rowsPerPart === 0) {
    throw new UnsupportedError(
      `${name}, ${
        describeType(type)
      }, has ${total} bytes: a shader of this GPU sees ${maxBindingBytes} at most`,
    );
  }
  const parts: BufferRange[] = [];
  for (let begin = 0; begin < total; begin += rowsPerPart * rowBytes) {
    const length = Math.min(rowsPerPart * rowBytes, total - begin);
    parts.push({ buffer, byteOffset: byteOffset + begin, byteLength: length });
  }
  return { type, ...stored, parts, rowsPerPart };
}

/** @throws RangeError for a call that WebGPU would refuse, or run otherwise than it is meant: it names the shader. */
export function checkCall(call: ShaderCall, target: ShaderTarget): void {
  const { shader: { key, bindings }, ranges, workgroups } = call;
  const fail = (found: string): never => {
    throw new RangeError(`Cannot call shader ${key}: ${found}`);
  };
  const uses = bindings.filter((use) => use !== "uniform");
  if (uses.length !== ranges.length) fail(`it has ${ranges.length} ranges, wanted ${uses.length}`);
  if (bindings.includes("uniform") !== (call.uniforms !== undefined)) {
    fail(
      `it has ${call.uniforms ? "" : "no "}uniforms, which its bindings ${call.uniforms ? "lack" : "want"}`,
    );
  }
  ranges.forEach(({ buffer, byteOffset, byteLength }, index) => {
    if (byteOffset % rangeGrain !== 0) {
      fail(`range ${index} begins at ${byteOffset}, no multiple of ${rangeGrain}`);
    }
    if (byteLength <= 0 || byteLength % 4 !== 0) {
      fail(`range ${index} has ${byteLength} bytes, no whole words`);
    }
    if (byteLength > target.maxBindingBytes) {
      fail(`range ${index} has ${byteLength} bytes, wanted ${target.maxBindingBytes} at most`);
    }
    if (uses[index] === "read") return;
    ranges.forEach((other, otherIndex) => {
      if (otherIndex === index || other.buffer !== buffer) return;
      if (uses[otherIndex] === "read") {
        fail(`ranges ${otherIndex} and ${index} read and write buffer ${buffer}`);
      }
      if (other.byteOffset < byteOffset + byteLength && byteOffset < other.byteOffset + other.byteLength) {
        fail(`ranges ${otherIndex} and ${index} write the same bytes of buffer ${buffer}`);
      }
    });
  });
  for (const count of workgroups) {
    if (!Number.isInteger(count) || count < 1 || count > target.maxWorkgroupsPerDimension) {
      fail(`its grid is ${workgroups.join(" × ")}, wanted 1 to ${target.maxWorkgroupsPerDimension} each`);
    }
  }
}

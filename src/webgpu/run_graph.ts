/**
 * Runs a graph once, from arrays to arrays, as the interpreter does: for tests.
 * @module
 */
import { byteLength, elementCount, type Graph, type Value, type ValueType } from "../graph/graph.ts";
import type { NumberArray } from "../graph/operation.ts";
import type { ShaderOperand, ShaderTarget } from "../kernels/shader.ts";
import type { GpuExecutor } from "./executor.ts";
import { operandAt } from "./operands.ts";
import { planShaders, relocate } from "./shader_plan.ts";

/**
 * Plans a graph, runs it and gives its outputs by name. `feeds` has parameters and inputs by name; tiled values are given and
 * returned plain, row-major [features, columns]. `target` may claim another device, such as one that is no CPU.
 */
export async function runGraph(
  executor: GpuExecutor,
  graph: Graph,
  feeds: ReadonlyMap<string, NumberArray>,
  target: ShaderTarget = executor.target,
): Promise<Map<string, NumberArray>> {
  const fed = [...graph.parameters.values(), ...graph.inputs.values()];
  const fedBuffers = await executor.createBuffers(fed.map(({ type }) => byteLength(type)));
  const bindings = new Map<Value, ShaderOperand>();
  fed.forEach((value, index) => {
    const buffer = fedBuffers[index];
    bindings.set(value, operandAt(value.name, value.type, { buffer }, target));
    executor.write(buffer, 0, deviceArray(feeds.get(value.name)!, value.type));
  });
  const plan = planShaders(graph, { target, bindings });
  const buffers = await executor.createBuffers(plan.buffers);
  const { calls, outputs } = relocate(plan, buffers);
  const program = await executor.load({ name: "graph", calls });
  await executor.submit(program);
  const names = [...outputs.keys()];
  const contents = await executor.read(names.flatMap((name) => outputs.get(name)!.parts));
  executor.unload(program);
  executor.destroyBuffers([...fedBuffers, ...buffers]);
  return new Map(names.map((name) => {
    const { type, parts } = outputs.get(name)!;
    return [name, hostArray(contents.splice(0, parts.length), type)];
  }));
}

/** What the device holds for an array: [column][feature] of a tiled matrix. */
function deviceArray(array: NumberArray, type: ValueType): Int32Array | Float32Array {
  const plain = type.layout === "tiled" ? transposed(array, type.shape[0], type.shape[1]) : array;
  return type.dtype === "i32" ? Int32Array.from(plain) : Float32Array.from(plain);
}

function hostArray(parts: readonly ArrayBuffer[], type: ValueType): NumberArray {
  const array = new (type.dtype === "i32" ? Int32Array : Float32Array)(elementCount(type));
  let begin = 0;
  for (const part of parts) {
    array.set(type.dtype === "i32" ? new Int32Array(part) : new Float32Array(part), begin);
    begin += part.byteLength / 4;
  }
  return type.layout === "tiled" ? transposed(array, type.shape[1], type.shape[0]) : array;
}

/** [rows, columns] to [columns, rows]. */
function transposed<T extends NumberArray>(array: T, rows: number, columns: number): T {
  const result = array.slice() as T;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = array[row * columns + column];
    }
  }
  return result;
}

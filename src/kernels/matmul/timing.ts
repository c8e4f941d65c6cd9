/**
 * Timing of one operation on one worker.
 * @module
 */
import { byteLength, elementCount, Graph, type Value, type ValueType } from "../../graph/graph.ts";
import { packTiled, unpackTiled } from "../../graph/layout.ts";
import type { NumberArray, Operation } from "../../graph/operation.ts";
import type { Machine } from "../../machines/machine.ts";
import { Arena } from "../../plan/arena.ts";
import { InlineExecutor, prepare } from "../../plan/executor.ts";
import { planBytes, planGraph } from "../../plan/plan.ts";

/** What `timeOperation` runs. Inputs are row-major, as the references take them. */
export interface TimingRequest<A> {
  readonly machine: Machine;
  readonly tile: number;
  readonly operation: Operation<A>;
  readonly attributes: A;
  readonly inputTypes: readonly (ValueType | undefined)[];
  readonly inputs: readonly (NumberArray | undefined)[];
}

/** Plans one operation for one worker and runs it on this thread: the fastest run, and its first result, row-major. */
export async function timeOperation<A>(
  request: TimingRequest<A>,
): Promise<{ readonly seconds: number; readonly result: Float32Array }> {
  const { machine, tile, operation, attributes, inputTypes, inputs } = request;
  const graph = new Graph();
  const values = inputTypes.map((type, index) => type && graph.input(`input${index}`, type));
  const [output] = graph.apply(operation, attributes, values);
  graph.output("result", output);

  const types = [...inputTypes, output.type].filter((type) => type !== undefined);
  const arena = new Arena(types.reduce((bytes, type) => bytes + byteLength(type) + 64, 16 << 20));
  const bindings = new Map<Value, number>();
  for (const [index, value] of values.entries()) {
    if (!value) continue;
    const address = arena.allocate(byteLength(value.type), value.name);
    bindings.set(value, address);
    writeOperand(arena, value.type, address, inputs[index]!, tile);
  }
  const target = { lanes: machine.lanes, vectorRegisters: machine.vectorRegisters, tile, workers: 1 };
  const plan = planGraph(graph, { target, bindings, base: arena.usedBytes });
  arena.allocate(planBytes(plan), "plan");
  const executor = new InlineExecutor(machine, 1, arena);
  const program = await prepare(executor, plan);
  const seconds = await fastest(() => executor.run(program));

  const { address, type } = plan.outputs.get("result")!;
  const raw = arena.float32(address, elementCount(type));
  const result = type.layout === "tiled"
    ? unpackTiled(raw, type.shape[0], type.shape[1], tile)
    : Float32Array.from(raw);
  return { seconds, result };
}

/** Writes an operand as kernels read it. */
export function writeOperand(
  arena: Arena,
  type: ValueType,
  address: number,
  source: NumberArray,
  tile: number,
): void {
  if (type.dtype === "u8") return arena.bytes(address, source.length).set(source);
  if (type.dtype === "i32") return arena.int32(address, source.length).set(source);
  const target = arena.float32(address, source.length);
  if (type.layout === "tiled") packTiled(source, target, type.shape[0], type.shape[1], tile);
  else target.set(source);
}

/**
 * Seconds of the fastest run. Runs for 0.4 s first, yielding to the event loop, so that the engine can swap in its
 * optimised code; the minimum is what noise from other processes disturbs least.
 */
async function fastest(run: () => void | Promise<void>): Promise<number> {
  let best = Infinity;
  const begin = performance.now();
  for (let now = begin; now < begin + 1000;) {
    await run();
    const end = performance.now();
    if (now > begin + 400) best = Math.min(best, end - now);
    await new Promise((resolve) => setTimeout(resolve));
    now = performance.now();
  }
  return best / 1000;
}

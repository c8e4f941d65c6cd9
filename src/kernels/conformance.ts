/**
 * The suite every operation passes: its kernels on every machine of this host against its reference, and its
 * gradient rule against central differences of the reference.
 *
 * Every case runs on every machine, for three tile widths, with one, two and three workers, and once more for each pair
 * of operands that may share a buffer. `run_operation.ts` guards the memory; stray writes cannot hide.
 *
 * ```ts
 * Deno.test("gelu conforms", (t) => conform(t, gelu, [{
 *   name: "one tile and a bit",
 *   seed: 1,
 *   tolerance: { relative: 1e-6, absolute: 1e-7 },
 *   build({ tile, random }) {
 *     const type = tiled(5, padColumns(tile + 1, tile));
 *     return { attributes: {}, inputTypes: [type], inputs: [normals(random, type)] };
 *   },
 * }]));
 * ```
 * @module
 */
import { errorMessage } from "../core/errors.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import { sameType, type ValueType } from "../graph/graph.ts";
import type { NumberArray, Operation } from "../graph/operation.ts";
import { availableMachines, type Machine } from "../machines/mod.ts";
import { elementOf } from "../webgpu/operands.ts";
import { elementName, type OperationInputs } from "./operands.ts";
import { firstBitDifference, poison, runOperation } from "./run_operation.ts";
import type { ShaderLowering, ShaderTarget } from "./shader.ts";
import { loweringOf, runLowering, type TestGpu, testGpu } from "./shader_conformance.ts";

export { centralDifferences, type DifferenceCheck } from "./central_differences.ts";
export { normals, type OperationInputs, padColumns, paddedIndices } from "./operands.ts";
export { runOperation, type RunOptions } from "./run_operation.ts";

/** |found − expected| ≤ absolute + relative · |expected|. NaN and infinities must match exactly. */
export interface Tolerance {
  /** Part of |expected| the result may be off by. */
  readonly relative: number;
  /** What the result may be off by besides, for results near 0. */
  readonly absolute: number;
}

/** One case of the suite, built anew for each tile width. */
export interface ConformanceCase<A> {
  /** What is special about it, in the words of the failure message. */
  readonly name: string;
  /** Seed of `random`. */
  readonly seed: number;
  /** How far results may be from the reference computed in float64. */
  readonly tolerance: Tolerance;
  /** Makes the operands. Column counts of tiled operands must be multiples of `tile`. */
  build(request: { readonly tile: number; readonly random: RandomStream }): OperationInputs<A>;
}

/** The part of `Deno.TestContext` the suite uses. */
export interface StepRunner {
  /** Runs one named step of a test. */
  step(name: string, run: () => void | Promise<void>): Promise<unknown>;
}

/**
 * Checks an operation's kernels on every machine, tile width and worker count, and its shaders on the GPU if there is one. One
 * test step per machine and tile.
 */
export async function conform<A>(
  t: StepRunner,
  operation: Operation<A>,
  cases: readonly ConformanceCase<A>[],
): Promise<void> {
  const machines = availableMachines();
  if (machines.length === 0) throw new Error("This host has no machine to run kernels on");
  for (const machine of machines) {
    const { lanes } = machine;
    for (const tile of new Set([lanes, 2 * lanes, Math.max(32, lanes)])) {
      await t.step(`${operation.name} on ${machine.isa}, tile ${tile}`, () => {
        for (const oneCase of cases) checkCase(operation, oneCase, machine, tile);
      });
    }
  }
  await conformOnGpu(t, operation, cases);
}

/** Checks an operation's shaders, where it has some and there is a GPU. */
async function conformOnGpu<A>(
  t: StepRunner,
  operation: Operation<A>,
  cases: readonly ConformanceCase<A>[],
): Promise<void> {
  const lowering = loweringOf(operation);
  const gpu = lowering && await testGpu();
  if (!gpu) return;
  const halves: ShaderTarget = { ...gpu.target, activations: "f16" };
  for (const target of gpu.target.f16 ? [gpu.target, halves] : [gpu.target]) {
    const place = `${gpu.executor.adapter.name}${target.activations ? ` in ${target.activations}` : ""}`;
    await t.step(`${operation.name} on ${place}`, async () => {
      for (const oneCase of cases) {
        await checkShaders(operation, oneCase, { ...gpu, target }, lowering, place);
      }
    });
  }
}

async function checkShaders<A>(
  operation: Operation<A>,
  { name, seed, tolerance, build }: ConformanceCase<A>,
  gpu: TestGpu,
  lowering: ShaderLowering<A>,
  place: string,
): Promise<void> {
  const { toleranceFactor = 1, specials } = lowering;
  // Operands are exact in float16, those too that only a product rounds.
  const rounded = gpu.target.activations && ((array: NumberArray) => array.map(Math.f16round));
  const built = buildCase(operation, { name, seed, build }, gpu.target.columnGrain, rounded);
  const where = `${operation.name} "${name}" ${built.shapes} on ${place}, seed ${seed}`;
  const found = await runLowering(gpu, lowering, built.attributes, built.inputs, built.inputTypes)
    .catch((error) => {
      throw new Error(`${where}: ${errorMessage(error)}`, { cause: error });
    });
  found.forEach((result, output) => {
    const type = built.outputTypes[output];
    const rounding = elementOf(type, gpu.target) ? halfRounding : { relative: 0, absolute: 0 };
    checkClose(`${where}, output ${output}`, result, built.expected[output], type, {
      relative: toleranceFactor * tolerance.relative + rounding.relative,
      absolute: toleranceFactor * tolerance.absolute + rounding.absolute,
    }, specials !== undefined);
  });
}

/** Half of what is between neighbours in float16, and between those near 0. */
const halfRounding: Tolerance = { relative: 2 ** -11, absolute: 2 ** -25 };

/** Operands of a case with what the reference makes of them. */
function buildCase<A>(
  operation: Operation<A>,
  { name, seed, build }: Omit<ConformanceCase<A>, "tolerance">,
  tile: number,
  rounded: (array: NumberArray) => NumberArray = (array) => array,
) {
  const random = new RandomStream(randomKey(seed, operation.name, name));
  const { attributes, inputs: given, inputTypes } = build({ tile, random });
  const inputs = given.map((array, index) =>
    array && inputTypes[index]?.dtype === "f32" ? rounded(array) : array
  );
  const outputTypes = operation.infer(inputTypes, attributes);
  // The oracle reads the numbers the kernel reads, and computes in float64.
  const expected = operation.reference(
    inputs.map((array, index) =>
      array && inputTypes[index]?.dtype === "f32"
        ? Float64Array.from(array, (value) => Math.fround(value))
        : array
    ),
    { attributes, inputTypes, outputTypes },
  );
  const shapes = inputTypes.map((type) => type ? `[${type.shape}]` : "nothing").join(" ");
  return { attributes, inputs, inputTypes, outputTypes, expected, shapes };
}

function checkCase<A>(
  operation: Operation<A>,
  { name, seed, tolerance, build }: ConformanceCase<A>,
  machine: Machine,
  tile: number,
): void {
  const built = buildCase(operation, { name, seed, build }, tile);
  const { attributes, inputs, inputTypes, outputTypes, expected, shapes } = built;
  const where = `${operation.name} "${name}" ${shapes} on ${machine.isa}, tile ${tile}, seed ${seed}`;
  const run = (workers: number, shared?: readonly [number, number]) => {
    try {
      return runOperation(operation, attributes, inputs, inputTypes, { machine, tile, workers, shared });
    } catch (error) {
      const place = shared ? `, input ${shared[0]} and output ${shared[1]} in one buffer` : "";
      throw new Error(`${where}, ${workers} workers${place}: ${errorMessage(error)}`, { cause: error });
    }
  };

  const results = run(1);
  results.forEach((result, output) => {
    checkClose(`${where}, output ${output}`, result, expected[output], outputTypes[output], tolerance);
  });
  const checkSame = (found: readonly NumberArray[], change: string) =>
    results.forEach((result, output) => {
      const index = firstBitDifference(result, found[output]);
      if (index >= 0) {
        throw new Error(
          `${where}, output ${output}: ${change} changes ${elementName(index, outputTypes[output])} ` +
            `from ${result[index]} to ${found[output][index]}`,
        );
      }
    });
  for (const workers of [2, 3]) checkSame(run(workers), `using ${workers} workers`);
  for (const [input, output] of operation.inPlace ?? []) {
    const [source, result] = [inputTypes[input], outputTypes[output]];
    if (!source || !result || !sameType(source, result)) continue;
    checkSame(run(2, [input, output]), `sharing the buffer of input ${input} and output ${output}`);
  }
}

function checkClose(
  where: string,
  found: NumberArray,
  expected: NumberArray,
  type: ValueType,
  { relative, absolute }: Tolerance,
  finiteOnly = false,
): void {
  if (expected.length !== found.length) {
    throw new Error(`${where}: the reference gives ${expected.length} elements, wanted ${found.length}`);
  }
  const bits = new Uint32Array(type.dtype === "f32" ? found.buffer : new ArrayBuffer(0));
  for (let index = 0; index < found.length; index++) {
    const wanted = type.dtype === "f32" ? Math.fround(expected[index]) : expected[index];
    const value = found[index];
    const fromPoison = bits.length > 0 && (bits[index] & 0x7fffffff) === poison;
    const close = Object.is(value, wanted) ||
      Math.abs(value - wanted) <= absolute + relative * Math.abs(wanted) && Number.isFinite(wanted);
    if ((close || finiteOnly && !Number.isFinite(wanted)) && !fromPoison) continue;
    throw new Error(
      `${where}: ${elementName(index, type)} is ${value}${fromPoison ? " from unwritten memory" : ""}, ` +
        `wanted ${wanted} within ${relative} · |wanted| + ${absolute}`,
    );
  }
}

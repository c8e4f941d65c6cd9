/**
 * The suite every operation passes: its kernels on every machine of this host against its reference, and its
 * gradient rule against central differences of the reference.
 *
 * A run places the operands in an arena full of NaN, with canary zones around every buffer, and executes the
 * lowered steps once with the workers in order and once in reverse. Afterwards every byte outside the results and
 * the scratch memory must be what it was: stray writes cannot hide.
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
import { randomKey, RandomStream } from "../core/random.ts";
import {
  byteLength,
  elementCount,
  Graph,
  type Node,
  sameType,
  type Value,
  type ValueType,
} from "../graph/graph.ts";
import { interpret } from "../graph/interpreter.ts";
import { tiledIndex } from "../graph/layout.ts";
import type { NumberArray, Operand, Operation, Step, Target } from "../graph/operation.ts";
import {
  availableMachines,
  createArenaMemory,
  type LinkedKernel,
  linkImage,
  type Machine,
} from "../machines/mod.ts";
import type { Kernel } from "./kernel.ts";

/** Operands of one application, as the reference takes them: tiled values plain, row-major [features, columns]. */
export interface OperationInputs<A> {
  readonly attributes: A;
  readonly inputTypes: readonly (ValueType | undefined)[];
  readonly inputs: readonly (NumberArray | undefined)[];
}

/** |found − expected| ≤ absolute + relative · |expected|. NaN and infinities must match exactly. */
export interface Tolerance {
  readonly relative: number;
  readonly absolute: number;
}

/** One case of the suite, built anew for each tile width. */
export interface ConformanceCase<A> {
  /** What is special about it, in the words of the failure message. */
  readonly name: string;
  /** Seed of `random`. */
  readonly seed: number;
  readonly tolerance: Tolerance;
  /** Makes the operands. Column counts of tiled operands must be multiples of `tile`. */
  build(request: { readonly tile: number; readonly random: RandomStream }): OperationInputs<A>;
}

/** How `runOperation` runs: `tile` is a multiple of the machine's lanes. */
export interface RunOptions {
  readonly machine: Machine;
  readonly tile: number;
  readonly workers: number;
  /** Places this input and this output at the same address, as a planner may for a pair of `Operation.inPlace`. */
  readonly shared?: readonly [input: number, output: number];
}

// Making operands ---------------------------------------------------------------------------------------------

/** The least multiple of `tile` that holds `columns`. */
export function padColumns(columns: number, tile: number): number {
  return Math.ceil(columns / tile) * tile;
}

/** Standard normal f32 numbers, as many as the type has elements. */
export function normals(random: RandomStream, type: ValueType, deviation = 1): Float32Array {
  return Float32Array.from({ length: elementCount(type) }, () => deviation * random.normal());
}

/** An index list of `length`: the given values, then `padding` (−1 unless told). */
export function paddedIndices(values: readonly number[], length: number, padding = -1): Int32Array {
  const list = new Int32Array(length).fill(padding);
  list.set(values);
  return list;
}

// Running on a machine ----------------------------------------------------------------------------------------

/** Wide enough for the longest vector of any machine (64 bytes) to miss its buffer four times. */
const canaryBytes = 256;
const alignment = 64;
/** A quiet NaN that no arithmetic makes by itself: found in a result, it came from memory nobody wrote. */
const poison = 0x7fc0dead;

interface Region {
  readonly name: string;
  readonly address: number;
  readonly bytes: number;
}

/** Hands out aligned addresses with a canary zone before, between and after. */
class ArenaLayout {
  readonly regions: Region[] = [];
  #end = canaryBytes;

  place(name: string, bytes: number): Region {
    const region = { name, address: this.#end, bytes };
    this.regions.push(region);
    this.#end = Math.ceil((this.#end + bytes) / alignment) * alignment + canaryBytes;
    return region;
  }

  get byteLength(): number {
    return this.#end;
  }
}

// Making a memory costs the kernel a 4 GiB reservation and linking costs a compilation: both are kept between runs.
let arena = createArenaMemory(1 << 20);
const linked = new Map<string, Map<string, LinkedKernel>>();
const kernelOfKey = new Map<string, Kernel>();

function arenaOf(bytes: number): ArrayBufferLike {
  if (arena.buffer.byteLength < bytes) {
    arena = createArenaMemory(2 * bytes);
    linked.clear();
  }
  return arena.buffer;
}

function link(machine: Machine, kernels: readonly Kernel[]): Map<string, LinkedKernel> {
  for (const kernel of new Set(kernels)) {
    const key = `${machine.isa} ${kernel.key}`;
    const known = kernelOfKey.get(key) ?? kernel;
    // A key that forgets one of the constants in the code: assembling both finds it.
    if (known !== kernel) machine.assemble([known, kernel]);
    kernelOfKey.set(key, known);
  }
  const name = [machine.isa, ...new Set(kernels.map((kernel) => kernel.key))].join(" ");
  const known = linked.get(name);
  if (known) return known;
  const image = machine.assemble(kernels);
  const functions = linkImage(image, arena);
  const table = new Map(image.keys.map((key, index) => [key, functions[index]]));
  linked.set(name, table);
  return table;
}

/**
 * Runs one operation on one machine. Gives its outputs in row-major order.
 * Throws when a byte outside the outputs changes, or when the order of the workers changes a bit of a result.
 */
export function runOperation<A>(
  operation: Operation<A>,
  attributes: A,
  inputs: readonly (NumberArray | undefined)[],
  inputTypes: readonly (ValueType | undefined)[],
  options: RunOptions,
): NumberArray[] {
  const { machine, tile, workers, shared } = options;
  const target: Target = { lanes: machine.lanes, vectorRegisters: machine.vectorRegisters, tile, workers };
  const graph = new Graph();
  const values = inputTypes.map((type, index) => type && graph.input(`input${index}`, type));
  const outputTypes = graph.apply(operation, attributes, values).map((value) => value.type);
  for (const type of [...inputTypes, ...outputTypes]) {
    if (type?.layout === "tiled" && type.shape[1] % tile !== 0) {
      throw new TypeError(`Cannot run ${operation.name} with ${type.shape[1]} columns: tiles have ${tile}`);
    }
  }

  const layout = new ArenaLayout();
  const inputOperands = inputTypes.map((type, index): Operand | undefined =>
    type && { type, address: layout.place(`input ${index}`, byteLength(type)).address }
  );
  const outputOperands = outputTypes.map((type, index): Operand => {
    const input = shared?.[1] === index ? inputOperands[shared[0]] : undefined;
    return { type, address: input?.address ?? layout.place(`output ${index}`, byteLength(type)).address };
  });
  const scratchBytes = operation.scratchBytes?.(graph.nodes[0] as Node<A>, target) ?? 0;
  const scratch = Array.from({ length: workers }, (_, worker) => {
    return layout.place(`scratch of worker ${worker}`, scratchBytes);
  });
  const steps = operation.lower({
    attributes,
    inputs: inputOperands,
    outputs: outputOperands,
    target,
    scratch(worker) {
      if (!scratch[worker]) throw new RangeError(`Worker ${worker} of ${workers} has no scratch memory`);
      return scratch[worker].address;
    },
  });
  for (const step of steps) {
    if (step.calls.length !== workers) {
      throw new TypeError(
        `Step ${step.name} of ${operation.name} has ${step.calls.length} call lists, wanted ${workers}`,
      );
    }
  }
  const calls = steps.flatMap((step) => step.calls.flat());
  const argumentWords = calls.flatMap((call) => call.words);
  const argumentRegion = layout.place("arguments", 4 * argumentWords.length);

  const buffer = arenaOf(layout.byteLength);
  const kernels = link(machine, calls.map((call) => call.kernel));
  const writable: Region[] = [
    ...scratch,
    ...outputOperands.map((operand, index) => ({
      name: `output ${index}`,
      address: operand.address,
      bytes: byteLength(operand.type),
    })),
  ];

  const execute = (reversed: boolean): NumberArray[] => {
    const guarded = new Uint8Array(buffer, 0, layout.byteLength);
    new Uint32Array(buffer, 0, layout.byteLength / 4).fill(poison);
    inputOperands.forEach((operand, index) => {
      if (operand) writeOperand(buffer, operand, inputs[index]!, tile, `${operation.name} input ${index}`);
    });
    new Int32Array(buffer, argumentRegion.address, argumentWords.length).set(argumentWords);
    const before = guarded.slice();
    executeSteps(steps, kernels, argumentRegion.address, reversed);
    checkUntouched(operation.name, before, guarded, layout.regions, writable);
    return outputOperands.map((operand) => readOperand(buffer, operand, tile));
  };
  const results = execute(false);
  const reversedResults = execute(true);
  results.forEach((result, index) => {
    const difference = firstBitDifference(result, reversedResults[index]);
    if (difference >= 0) {
      throw new Error(
        `${operation.name} output ${index} depends on the order of the workers: element ${difference} is ` +
          `${result[difference]} in order, ${reversedResults[index][difference]} in reverse`,
      );
    }
  });
  return results;
}

function executeSteps(
  steps: readonly Step[],
  kernels: ReadonlyMap<string, LinkedKernel>,
  argumentsAddress: number,
  reversed: boolean,
): void {
  let address = argumentsAddress;
  for (const step of steps) {
    const workers = step.calls.map((calls) =>
      calls.map(({ kernel, words }) => {
        const call = { run: kernels.get(kernel.key)!, address };
        address += 4 * words.length;
        return call;
      })
    );
    if (reversed) workers.reverse();
    for (const calls of workers) {
      for (const call of calls) call.run(call.address);
    }
  }
}

function writeOperand(
  buffer: ArrayBufferLike,
  operand: Operand,
  source: NumberArray,
  tile: number,
  name: string,
): void {
  const { type } = operand;
  const count = elementCount(type);
  if (source.length !== count) {
    throw new TypeError(`Cannot place ${name}: found ${source.length} elements, wanted ${count}`);
  }
  const target = viewOf(buffer, operand);
  if (type.layout === "rows") return target.set(source);
  const [features, columns] = type.shape;
  for (let i = 0; i < count; i++) {
    target[tiledIndex(Math.floor(i / columns), i % columns, features, tile)] = source[i];
  }
}

function readOperand(buffer: ArrayBufferLike, operand: Operand, tile: number): NumberArray {
  const view = viewOf(buffer, operand);
  const result = view.slice();
  if (operand.type.layout === "rows") return result;
  const [features, columns] = operand.type.shape;
  // Moved as words: a Float32Array assignment may change the bits of a NaN.
  const source = new Uint32Array(buffer, operand.address, view.length);
  const target = new Uint32Array(result.buffer);
  for (let i = 0; i < view.length; i++) {
    target[i] = source[tiledIndex(Math.floor(i / columns), i % columns, features, tile)];
  }
  return result;
}

function viewOf(buffer: ArrayBufferLike, { type, address }: Operand): Float32Array | Int32Array | Uint8Array {
  const count = elementCount(type);
  if (type.dtype === "u8") return new Uint8Array(buffer, address, count);
  return type.dtype === "i32"
    ? new Int32Array(buffer, address, count)
    : new Float32Array(buffer, address, count);
}

/** Throws when a byte outside `writable` changed. */
function checkUntouched(
  operation: string,
  before: Uint8Array,
  after: Uint8Array,
  regions: readonly Region[],
  writable: readonly Region[],
): void {
  for (const { address, bytes } of writable) {
    before.set(after.subarray(address, address + bytes), address);
  }
  const wordsBefore = new Uint32Array(before.buffer);
  const wordsAfter = new Uint32Array(after.buffer, 0, wordsBefore.length);
  let word = 0;
  while (word < wordsBefore.length && wordsBefore[word] === wordsAfter[word]) word++;
  if (word === wordsBefore.length) return;
  let address = 4 * word;
  while (before[address] === after[address]) address++;
  const region = regions.findLast((candidate) => candidate.address <= address);
  const place = region === undefined
    ? `byte ${address}, before every buffer`
    : address < region.address + region.bytes
    ? `byte ${address - region.address} of ${region.name}, which is read-only`
    : `${
      address - region.address - region.bytes
    } bytes past the end of ${region.name} (${region.bytes} bytes)`;
  throw new Error(`${operation} wrote outside its results: ${place}`);
}

/** Index of the first element whose bits differ, or −1. */
function firstBitDifference(a: NumberArray, b: NumberArray): number {
  const left = new Uint8Array(a.buffer);
  const right = new Uint8Array(b.buffer);
  for (let byte = 0; byte < left.length; byte++) {
    if (left[byte] !== right[byte]) return Math.floor(byte / a.BYTES_PER_ELEMENT);
  }
  return -1;
}

// The suite ---------------------------------------------------------------------------------------------------

/** Checks an operation's kernels on every machine, tile width and worker count. One test step per machine and tile. */
export async function conform<A>(
  t: Deno.TestContext,
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
}

function checkCase<A>(
  operation: Operation<A>,
  { name, seed, tolerance, build }: ConformanceCase<A>,
  machine: Machine,
  tile: number,
): void {
  const random = new RandomStream(randomKey(seed, operation.name, name));
  const { attributes, inputs, inputTypes } = build({ tile, random });
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
  const where = `${operation.name} "${name}" ${shapes} on ${machine.isa}, tile ${tile}, seed ${seed}`;
  const run = (workers: number, shared?: readonly [number, number]) => {
    try {
      return runOperation(operation, attributes, inputs, inputTypes, { machine, tile, workers, shared });
    } catch (error) {
      throw new Error(`${where}, ${workers} workers${shared ? ", in place" : ""}`, { cause: error });
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
    const inputType = inputTypes[input];
    if (inputType === undefined || outputTypes[output] === undefined) continue;
    if (!sameType(inputType, outputTypes[output])) continue;
    checkSame(run(2, [input, output]), `sharing the buffer of input ${input} and output ${output}`);
  }
}

function checkClose(
  where: string,
  found: NumberArray,
  expected: NumberArray,
  type: ValueType,
  { relative, absolute }: Tolerance,
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
    if (close && !fromPoison) continue;
    throw new Error(
      `${where}: ${elementName(index, type)} is ${value}${fromPoison ? " from unwritten memory" : ""}, ` +
        `wanted ${wanted} within ${relative} · |wanted| + ${absolute}`,
    );
  }
}

/** `element 7 at [1, 3]` */
function elementName(index: number, type: ValueType): string {
  let rest = index;
  const position = type.shape.toReversed().map((size) => {
    const coordinate = rest % size;
    rest = Math.floor(rest / size);
    return coordinate;
  });
  return `element ${index} at [${position.reverse().join(", ")}]`;
}

// Gradients ---------------------------------------------------------------------------------------------------

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
  const gradients: (Value | undefined)[] = operation.gradient({
    graph,
    node: graph.producer(outputs[0])! as Parameters<NonNullable<typeof operation.gradient>>[0]["node"],
    outputGradients,
  });
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

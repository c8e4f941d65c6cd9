/**
 * Runs one operation on one machine, in one thread, and catches what must not happen: for tests.
 *
 * The operands are placed in an arena full of NaN, with canary zones around every buffer. The lowered steps run twice:
 * once with the workers one after the other, and once with every worker alone on the memory as it was before the step,
 * which is what a worker may rely on when all of them run at once.
 * @module
 */
import { byteLength, elementCount, Graph, type Node, type ValueType } from "../graph/graph.ts";
import { tiledIndex } from "../graph/layout.ts";
import type { NumberArray, Operand, Operation, Placement, Step, Target } from "../graph/operation.ts";
import { createArenaMemory, type LinkedKernel, linkImage, type Machine } from "../machines/mod.ts";
import type { Kernel } from "./kernel.ts";

/** How `runOperation` runs. */
export interface RunOptions {
  /** What the kernels are assembled for. */
  readonly machine: Machine;
  /** Columns in a tile: a multiple of the machine's lanes that divides every tiled operand's columns. */
  readonly tile: number;
  /** Workers the steps are shared by; they run one after another. */
  readonly workers: number;
  /** Places this input and this output at the same address, as a planner may for a pair of `Operation.inPlace`. */
  readonly shared?: readonly [input: number, output: number];
}

/** Wide enough for the longest vector of any machine (64 bytes) to miss its buffer four times. */
const canaryBytes = 256;
const alignment = 64;
/** A quiet NaN that no arithmetic makes by itself: found in a result, it came from memory nobody wrote. */
export const poison = 0x7fc0dead;

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
 * Runs one operation on one machine. Takes and gives tiled values in row-major order.
 * Throws when a byte outside the outputs changes, or when a worker meets the work of another within a step.
 */
export function runOperation<A>(
  operation: Operation<A>,
  attributes: A,
  inputs: readonly (NumberArray | undefined)[],
  inputTypes: readonly (ValueType | undefined)[],
  options: RunOptions,
): NumberArray[] {
  const { machine, tile, workers } = options;
  const layout = new ArenaLayout();
  const { placement, writable } = place(operation, attributes, inputTypes, options, layout);
  const steps = operation.lower(placement);
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
  const program = bindSteps(steps, link(machine, calls.map((call) => call.kernel)), argumentRegion.address);

  const execute = (run: (memory: Uint8Array, program: readonly BoundStep[]) => void): NumberArray[] => {
    const memory = new Uint8Array(buffer, 0, layout.byteLength);
    new Uint32Array(buffer, 0, layout.byteLength / 4).fill(poison);
    placement.inputs.forEach((operand, index) => {
      if (operand) writeOperand(buffer, operand, inputs[index]!, tile, `${operation.name} input ${index}`);
    });
    new Int32Array(buffer, argumentRegion.address, argumentWords.length).set(argumentWords);
    const before = memory.slice();
    run(memory, program);
    checkUntouched(operation.name, before, memory, layout.regions, writable);
    return placement.outputs.map((operand) => readOperand(buffer, operand, tile));
  };
  const results = execute(runInTurn);
  if (workers > 1) {
    const isolated = execute(runIsolated);
    results.forEach((result, index) => {
      const element = firstBitDifference(result, isolated[index]);
      if (element < 0) return;
      throw new Error(
        `${operation.name} output ${index} depends on the order of the workers: element ${element} is ` +
          `${result[element]} in turn, ${isolated[index][element]} when they cannot see each other`,
      );
    });
  }
  return results;
}

/** Gives every operand and every worker's scratch memory a place. */
function place<A>(
  operation: Operation<A>,
  attributes: A,
  inputTypes: readonly (ValueType | undefined)[],
  { machine, tile, workers, shared }: RunOptions,
  layout: ArenaLayout,
): { placement: Placement<A>; writable: Region[] } {
  const target: Target = { lanes: machine.lanes, vectorRegisters: machine.vectorRegisters, tile, workers };
  const graph = new Graph();
  const values = inputTypes.map((type, index) => type && graph.input(`input${index}`, type));
  const outputTypes = graph.apply(operation, attributes, values).map((value) => value.type);
  for (const type of [...inputTypes, ...outputTypes]) {
    if (type?.layout === "tiled" && type.shape[1] % tile !== 0) {
      throw new TypeError(`Cannot run ${operation.name} with ${type.shape[1]} columns: tiles have ${tile}`);
    }
  }
  const inputs = inputTypes.map((type, index) =>
    type && { type, ...layout.place(`input ${index}`, byteLength(type)) }
  );
  const outputs = outputTypes.map((type, index) => {
    const input = shared?.[1] === index ? inputs[shared[0]] : undefined;
    return { type, ...(input ?? layout.place(`output ${index}`, byteLength(type))) };
  });
  const scratchBytes = operation.scratchBytes?.(graph.nodes[0] as Node<A>, target) ?? 0;
  const scratch = Array.from(
    { length: workers },
    (_, worker) => layout.place(`scratch of worker ${worker}`, scratchBytes),
  );
  const placement: Placement<A> = {
    attributes,
    inputs,
    outputs,
    target,
    scratch(worker) {
      if (scratch[worker]) return scratch[worker].address;
      throw new RangeError(`Cannot give scratch memory to worker ${worker}: there are ${workers} workers`);
    },
  };
  return { placement, writable: [...outputs, ...scratch] };
}

/** A step whose calls know their code and the place of their arguments: one list per worker. */
type BoundStep = readonly (readonly (() => void)[])[];

function bindSteps(
  steps: readonly Step[],
  kernels: ReadonlyMap<string, LinkedKernel>,
  argumentsAddress: number,
): BoundStep[] {
  let nextAddress = argumentsAddress;
  return steps.map((step) =>
    step.calls.map((calls) =>
      calls.map(({ kernel, words }) => {
        const run = kernels.get(kernel.key)!;
        const address = nextAddress;
        nextAddress += 4 * words.length;
        return () => run(address);
      })
    )
  );
}

function runInTurn(_memory: Uint8Array, program: readonly BoundStep[]): void {
  for (const step of program) {
    for (const calls of step) {
      for (const call of calls) call();
    }
  }
}

/** Each worker sees the memory as it was before the step. Throws when two workers change the same byte. */
function runIsolated(memory: Uint8Array, program: readonly BoundStep[]): void {
  program.forEach((step, stepIndex) => {
    const before = memory.slice();
    const after = memory.slice();
    const author = new Uint8Array(memory.length);
    step.forEach((calls, worker) => {
      memory.set(before);
      for (const call of calls) call();
      for (let byte = 0; byte < memory.length; byte++) {
        if (memory[byte] === before[byte]) continue;
        if (author[byte] !== 0) {
          throw new Error(
            `Workers ${author[byte] - 1} and ${worker} both write byte ${byte} in step ${stepIndex}`,
          );
        }
        author[byte] = worker + 1;
        after[byte] = memory[byte];
      }
    });
    memory.set(after);
  });
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
export function firstBitDifference(a: NumberArray, b: NumberArray): number {
  const left = new Uint8Array(a.buffer);
  const right = new Uint8Array(b.buffer);
  for (let byte = 0; byte < left.length; byte++) {
    if (left[byte] !== right[byte]) return Math.floor(byte / a.BYTES_PER_ELEMENT);
  }
  return -1;
}

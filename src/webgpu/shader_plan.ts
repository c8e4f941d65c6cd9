/**
 * The plan of a graph on the GPU: the shader calls, one after the other, and the buffers they need. Plain data.
 *
 * The nodes run in their order: a queue is the only schedule a GPU takes. (So `Node.after` is honoured by itself: a value can
 * only be waited for when its node is there already.)
 * @module
 */
import { UnsupportedError } from "../core/errors.ts";
import { liveNodes } from "../graph/autodiff.ts";
import { byteLength, elementCount, type Graph, type Node, type Value } from "../graph/graph.ts";
import type {
  BufferRange,
  ShaderCall,
  ShaderLowering,
  ShaderOperand,
  ShaderTarget,
} from "../kernels/shader.ts";
import { scaleCall } from "../kernels/loss_scale/wgsl.ts";
import { callInHalves } from "../kernels/wgsl_halves.ts";
import { fuseAddIntoMatmul } from "../plan/fusion.ts";
import type { BufferLifetime } from "../plan/memory.ts";
import { lowerings as allLowerings } from "./lowerings.ts";
import { checkCall, elementOf, operandAt, storedBytes } from "./operands.ts";
import { type BufferSharing, shareBuffers } from "./shared_buffers.ts";

/** Where planning starts from. */
export interface ShaderPlanRequest {
  readonly target: ShaderTarget;
  /** Places of values that live outside the plan: all parameters and inputs, and results to be left somewhere. */
  readonly bindings: ReadonlyMap<Value, ShaderOperand>;
  /** A result that is multiplied before it is stored, and by what: the root of a backward pass in float16. */
  readonly scaled?: { readonly value: Value; /** f32 */ readonly factor: BufferRange };
  /** Calls before the graph. */
  readonly prologue?: readonly ShaderCall[];
  /** Calls after the graph: the optimiser. */
  readonly epilogue?: readonly ShaderCall[];
  /**
   * A plan whose buffers this one shall run on: `buffers` begins with them, and has more behind them where they do not suffice.
   * The same graph for a smaller batch needs no more, as long as its shaders want no other scratch; so plan the largest batch
   * first, and let each plan reuse the one before it.
   */
  readonly reuse?: ShaderPlan;
  /** Shaders by the name of their operation; default all there are. */
  readonly lowerings?: ReadonlyMap<string, ShaderLowering>;
}

/** What runs a graph. Buffers of the caller keep their numbers; those of the plan have `ownBuffer(0)` and on: see `relocate`. */
export interface ShaderPlan {
  readonly calls: readonly ShaderCall[];
  /** Bytes of each buffer that the plan owns. */
  readonly buffers: readonly number[];
  /** Results named by `Graph.output`: theirs until the next run. */
  readonly outputs: ReadonlyMap<string, ShaderOperand>;
  /** The own buffer of each result and scratch buffer, node by node: what `reuse` goes by. */
  readonly assignment: readonly number[];
}

/** The number, in a plan, of the plan's own buffer of that index: negative, as no buffer of an executor is. */
export function ownBuffer(index: number): number {
  return -1 - index;
}

/**
 * Plans a graph. Where the target's activations are float16, tiled results lie in that, but for the graph's outputs, which the
 * caller reads. @throws Error naming the first parameter or input that is not bound. @throws UnsupportedError naming the
 * operations that have no shaders, or the first value that is larger than what one binding may span.
 */
export function planShaders(graph: Graph, request: ShaderPlanRequest): ShaderPlan {
  const { target, bindings, scaled, reuse, lowerings = allLowerings } = request;
  const nodes = fuseAddIntoMatmul(liveNodes(graph), graph.outputs.values());
  checkLowerings(nodes, lowerings);
  const operands = new Map(Array.from(bindings, ([value, operand]) => [value.id, operand]));
  checkBound([...nodes.flatMap(({ inputs }) => inputs), ...graph.outputs.values()], operands);

  const loweringOf = (node: Node) => lowerings.get(node.operation.name)!;
  const outputIds = new Set(Array.from(graph.outputs.values(), ({ id }) => id));
  const isScaled = ({ id }: Value) => id === scaled?.value.id;
  const needs = nodes.map((node): NodeNeeds => ({
    results: node.outputs.filter(({ id }) => !operands.has(id)).map((value) => {
      const element = outputIds.has(value.id) ? undefined : elementOf(value.type, target);
      return { value, element, bytes: storedBytes({ type: value.type, element }) };
    }),
    scratchBytes: [
      ...loweringOf(node).scratchBytes?.({
        attributes: node.attributes,
        inputTypes: node.inputs.map((input) => input?.type),
        outputTypes: node.outputs.map((output) => output.type),
      }, target) ?? [],
      ...node.outputs.filter(isScaled).map(({ type }) => byteLength(type)),
    ],
  }));
  const sharing = shareBuffers(
    lifetimes(nodes, needs, graph.outputs.values()),
    reuse && sharingOf(reuse),
  );

  const calls = [...request.prologue ?? []];
  const halves = new Set<BufferRange>();
  let slot = 0;
  nodes.forEach((node, index) => {
    for (const { value: { id, name, type }, element } of needs[index].results) {
      const buffer = ownBuffer(sharing.assignment[slot++]);
      const operand = operandAt(name, type, { buffer }, target, element);
      if (element) operand.parts.forEach((part) => halves.add(part));
      operands.set(id, operand);
    }
    const scratch = needs[index].scratchBytes.map((bytes): BufferRange => ({
      buffer: ownBuffer(sharing.assignment[slot++]),
      byteOffset: 0,
      byteLength: Math.max(4, Math.ceil(bytes / 4) * 4),
    }));
    const unscaled = node.outputs.some(isScaled) ? scratch.pop() : undefined;
    const nodeCalls = loweringOf(node).lower({
      attributes: node.attributes,
      inputs: node.inputs.map((input) => input && operands.get(input.id)!),
      outputs: node.outputs.map((output) =>
        unscaled && isScaled(output)
          ? operandAt(output.name, output.type, unscaled, target)
          : operands.get(output.id)!
      ),
      scratch,
      target,
    });
    if (unscaled) {
      const { id, type } = scaled!.value;
      const [result] = operands.get(id)!.parts;
      nodeCalls.push(
        scaleCall({ values: unscaled, factor: scaled!.factor, result, count: elementCount(type), target }),
      );
    }
    calls.push(...nodeCalls.map((call) => callInHalves(call, halves)));
  });
  calls.push(...request.epilogue ?? []);
  for (const call of calls) checkCall(call, target);
  return {
    calls,
    buffers: sharing.byteLengths,
    outputs: new Map(Array.from(graph.outputs, ([name, value]) => [name, operands.get(value.id)!])),
    assignment: sharing.assignment,
  };
}

/** A plan with its own buffers numbered as an executor numbered them: `ids[i]` is `ownBuffer(i)`. */
export function relocate(
  { calls, outputs }: ShaderPlan,
  ids: readonly number[],
): Pick<ShaderPlan, "calls" | "outputs"> {
  const moveRange = (range: BufferRange): BufferRange => {
    if (range.buffer >= 0) return range;
    const buffer = ids[-1 - range.buffer];
    if (buffer === undefined) {
      throw new RangeError(`Cannot relocate the plan: it owns more than ${ids.length} buffers`);
    }
    return { ...range, buffer };
  };
  return {
    calls: calls.map((call) => ({ ...call, ranges: call.ranges.map(moveRange) })),
    outputs: new Map(Array.from(outputs, ([name, operand]) => [
      name,
      { ...operand, parts: operand.parts.map(moveRange) },
    ])),
  };
}

/** What a node needs of the plan's own buffers. */
interface NodeNeeds {
  readonly results: readonly {
    readonly value: Value;
    readonly element: ShaderOperand["element"];
    readonly bytes: number;
  }[];
  readonly scratchBytes: readonly number[];
}

/** By results and scratch buffers, node by node; a phase is a node. Both lives end with the node that reads last: never before. */
function lifetimes(
  nodes: readonly Node[],
  needs: readonly NodeNeeds[],
  kept: Iterable<Value>,
): BufferLifetime[] {
  const lastUse = new Map<number, number>();
  nodes.forEach(({ inputs }, index) => {
    for (const input of inputs) if (input) lastUse.set(input.id, index);
  });
  for (const { id } of kept) lastUse.set(id, Infinity);
  return needs.flatMap(({ results, scratchBytes }, index) => [
    ...results.map(({ value: { id }, bytes }) => ({
      bytes,
      firstPhase: index,
      lastPhase: lastUse.get(id) ?? index,
    })),
    ...scratchBytes.map((bytes) => ({ bytes, firstPhase: index, lastPhase: index })),
  ]);
}

function sharingOf({ buffers, assignment }: ShaderPlan): BufferSharing {
  return { byteLengths: buffers, assignment };
}

function checkLowerings(nodes: readonly Node[], lowerings: ReadonlyMap<string, ShaderLowering>): void {
  const missing = new Set(
    nodes.map(({ operation }) => operation.name).filter((name) => !lowerings.has(name)),
  );
  if (missing.size === 0) return;
  throw new UnsupportedError(`Cannot run on a GPU: there are no shaders for ${[...missing].join(", ")}`);
}

function checkBound(
  values: readonly (Value | undefined)[],
  operands: ReadonlyMap<number, ShaderOperand>,
): void {
  const unbound = values.find((value) => value && value.role !== "result" && !operands.has(value.id));
  if (unbound) throw new Error(`Cannot plan: ${unbound.role} ${unbound.name} has no place`);
}

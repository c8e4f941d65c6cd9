/**
 * The plan: what each worker calls, phase by phase, on which bytes of the arena. Plain data.
 *
 * `planGraph` schedules the nodes, finds how long each value lives, places the buffers, and lowers every node to
 * kernel calls. A plan can be printed (`describePlan`), checked without running anything, and replayed any number
 * of times (`program.ts` writes it into the arena).
 * @module
 */
import { byteLength, type Graph, type Node, type Value } from "../graph/graph.ts";
import { liveNodes } from "../graph/autodiff.ts";
import type { Operand, Placement, Step, Target } from "../graph/operation.ts";
import type { Kernel } from "../kernels/kernel.ts";
import { fuseAddIntoMatmul } from "./fusion.ts";
import { alignUp, type BufferLifetime, layoutBuffers } from "./memory.ts";

/** Where planning starts from. */
export interface PlanRequest {
  readonly target: Target;
  /** Addresses of values that live outside the plan: all parameters and inputs, and results to be left somewhere. */
  readonly bindings: ReadonlyMap<Value, number>;
  /** First byte the plan may use for everything else. */
  readonly base: number;
  /** Steps to run before the graph: what brings parameters up to date. */
  readonly prologue?: readonly Step[];
  /** Steps to run after the graph: the optimiser. */
  readonly epilogue?: readonly Step[];
}

/**
 * Columns in a tile, unless a run is shorter: four vectors fill the registers of a block of rows, and 32 at least make
 * a broadcast weight worth its load. Wider tiles (128 on AVX-512) were no faster and waste more on the last tile.
 */
export function usualTile(lanes: number): number {
  return Math.max(32, 4 * lanes);
}

/** Work between two barriers. */
export type Phase = Step;

/** A placed value, for reading results and for printing. */
export interface PlacedValue extends Operand {
  readonly name: string;
  readonly firstPhase: number;
  readonly lastPhase: number;
}

/** Everything needed to run a graph. */
export interface Plan {
  readonly target: Target;
  readonly phases: readonly Phase[];
  /** Every kernel called, each once. */
  readonly kernels: readonly Kernel[];
  /** Results named by `Graph.output`. */
  readonly outputs: ReadonlyMap<string, Operand>;
  /** Buffers placed by this plan. */
  readonly buffers: readonly PlacedValue[];
  readonly base: number;
  /** Bytes from `base` for intermediate values. */
  readonly activationBytes: number;
  /** Bytes of private scratch memory, all workers together, after the activations. */
  readonly scratchBytes: number;
}

/** Plans a graph. Parameters and inputs must be bound; throws an error naming the first that is not. */
export function planGraph(graph: Graph, request: PlanRequest): Plan {
  const { target, bindings, base } = request;
  const nodes = fuseAddIntoMatmul(liveNodes(graph), graph.outputs.values());
  const schedule = scheduleNodes(nodes, target);
  const addresses = new Map<number, number>();
  for (const [value, address] of bindings) addresses.set(value.id, address);
  for (const node of nodes) {
    for (const input of node.inputs) {
      if (input && input.role !== "result" && !addresses.has(input.id)) {
        throw new Error(`Cannot plan: ${input.role} ${input.name} has no address`);
      }
    }
  }

  const { buffers, groupOf } = lifetimes(nodes, schedule, graph, addresses);
  const layout = layoutBuffers(buffers);
  const prologue = request.prologue ?? [];
  const placed: PlacedValue[] = [];
  for (const [value, group] of groupOf) {
    const address = base + layout.offsets[group];
    addresses.set(value.id, address);
    const firstPhase = prologue.length + buffers[group].firstPhase;
    const lastPhase = prologue.length + buffers[group].lastPhase;
    placed.push({ name: value.name, type: value.type, address, firstPhase, lastPhase });
  }

  const scratchBase = base + layout.totalBytes;
  const scratchPerWorker = alignUp(
    Math.max(0, ...nodes.map((node) => node.operation.scratchBytes?.(node, target) ?? 0)),
    4096,
  );
  const phases: { names: string[]; calls: Step["calls"][number][number][][] }[] = Array.from(
    { length: schedule.phaseCount },
    () => ({ names: [], calls: Array.from({ length: target.workers }, () => []) }),
  );
  const operand = (value: Value): Operand => ({ type: value.type, address: addresses.get(value.id)! });
  for (const node of nodes) {
    const steps = node.operation.lower({
      attributes: node.attributes,
      inputs: node.inputs.map((input) => input && operand(input)),
      outputs: node.outputs.map(operand),
      target,
      scratch: (worker) => scratchBase + worker * scratchPerWorker,
    });
    steps.forEach((step, index) => {
      const phase = phases[schedule.firstPhase.get(node)! + index];
      phase.names.push(step.name);
      step.calls.forEach((calls, worker) => phase.calls[worker].push(...calls));
    });
  }
  const allPhases: Phase[] = [
    ...prologue,
    ...phases.map(({ names, calls }) => ({ name: names.join(" + "), calls })),
    ...(request.epilogue ?? []),
  ];
  const kernels = new Map<string, Kernel>();
  for (const phase of allPhases) {
    for (const calls of phase.calls) for (const { kernel } of calls) kernels.set(kernel.key, kernel);
  }
  return {
    target,
    phases: allPhases,
    kernels: [...kernels.values()],
    outputs: new Map(Array.from(graph.outputs, ([name, value]) => [name, operand(value)])),
    buffers: placed,
    base,
    activationBytes: layout.totalBytes,
    scratchBytes: scratchPerWorker * target.workers,
  };
}

interface Schedule {
  readonly firstPhase: ReadonlyMap<Node, number>;
  readonly lastPhase: ReadonlyMap<Node, number>;
  readonly phaseCount: number;
}

/** As soon as possible: a node starts in the phase after the last of its operands, and what it waits for, is finished. */
function scheduleNodes(nodes: readonly Node[], target: Target): Schedule {
  const ready = new Map<number, number>();
  const firstPhase = new Map<Node, number>();
  const lastPhase = new Map<Node, number>();
  let phaseCount = 0;
  for (const node of nodes) {
    const first = Math.max(
      0,
      ...[...node.inputs, node.after].map((value) => value && ready.get(value.id) || 0),
    );
    // Lowering is pure, so a dry run at address 0 tells how many steps a node takes before anything is placed.
    const dry: Placement<unknown> = {
      attributes: node.attributes,
      inputs: node.inputs.map((input) => input && { type: input.type, address: 0 }),
      outputs: node.outputs.map((output) => ({ type: output.type, address: 0 })),
      target,
      scratch: () => 0,
    };
    const next = first + node.operation.lower(dry).length;
    firstPhase.set(node, first);
    lastPhase.set(node, next - 1);
    for (const output of node.outputs) ready.set(output.id, next);
    phaseCount = Math.max(phaseCount, next);
  }
  return { firstPhase, lastPhase, phaseCount };
}

/** Groups values that share a buffer (in-place results) and gives each group its lifetime. */
function lifetimes(
  nodes: readonly Node[],
  schedule: Schedule,
  graph: Graph,
  bound: ReadonlyMap<number, number>,
): { buffers: BufferLifetime[]; groupOf: Map<Value, number> } {
  const readers = new Map<number, Node[]>();
  for (const node of nodes) {
    for (const input of node.inputs) {
      if (!input) continue;
      const list = readers.get(input.id);
      if (list) list.push(node);
      else readers.set(input.id, [node]);
    }
  }
  const kept = new Set(Array.from(graph.outputs.values(), (value) => value.id));
  const buffers: { bytes: number; firstPhase: number; lastPhase: number }[] = [];
  const groupOf = new Map<Value, number>();
  const byId = new Map<number, number>();

  for (const node of nodes) {
    const first = schedule.firstPhase.get(node)!;
    const reused = new Set<number>();
    node.outputs.forEach((output, outputIndex) => {
      if (bound.has(output.id)) return;
      const uses = readers.get(output.id) ?? [];
      const last = kept.has(output.id)
        ? schedule.phaseCount
        : Math.max(schedule.lastPhase.get(node)!, ...uses.map((use) => schedule.lastPhase.get(use)!));
      let group: number | undefined;
      for (const [inputIndex, target] of node.operation.inPlace ?? []) {
        const input = node.inputs[inputIndex];
        if (target !== outputIndex || !input || kept.has(input.id)) continue;
        const candidate = byId.get(input.id);
        if (candidate === undefined || reused.has(candidate)) continue;
        // Another reader in the same phase or later would see the new content. The same input used twice by this
        // node is fine: in-place operations read an element before they write it.
        const free = buffers[candidate].bytes === byteLength(output.type) &&
          readers.get(input.id)!.every((other) => other === node || schedule.lastPhase.get(other)! < first) &&
          buffers[candidate].lastPhase <= first;
        if (!free) continue;
        group = candidate;
        reused.add(candidate);
        break;
      }
      if (group === undefined) {
        group = buffers.push({ bytes: byteLength(output.type), firstPhase: first, lastPhase: last }) - 1;
      } else {
        buffers[group].lastPhase = Math.max(buffers[group].lastPhase, last);
      }
      groupOf.set(output, group);
      byId.set(output.id, group);
    });
  }
  return { buffers, groupOf };
}

/** Total bytes from the plan's base: intermediates and scratch. */
export function planBytes(plan: Plan): number {
  return plan.activationBytes + plan.scratchBytes;
}

/** A plan as text: a line per phase with its calls by worker, then the buffers. */
export function describePlan(plan: Plan): string {
  const { target } = plan;
  const lines = [
    `${plan.phases.length} phases, ${target.workers} workers, a barrier after each phase, tiles of ${target.tile} columns, ` +
    `${target.lanes} lanes, ${plan.kernels.length} kernels, ` +
    `${(plan.activationBytes / 2 ** 20).toFixed(2)} MiB of activations, ` +
    `${(plan.scratchBytes / 2 ** 10).toFixed(0)} KiB of scratch`,
  ];
  plan.phases.forEach((phase, index) => {
    const shares = phase.calls.map((calls) => {
      const counts = new Map<string, number>();
      for (const { kernel } of calls) counts.set(kernel.key, (counts.get(kernel.key) ?? 0) + 1);
      return Array.from(counts, ([key, count]) => count > 1 ? `${key}×${count}` : key).join(", ") || "–";
    });
    lines.push(`${String(index).padStart(4)}  ${phase.name}: ${shares.join(" | ")}`);
  });
  for (const buffer of plan.buffers) {
    lines.push(
      `      ${buffer.name}: ${byteLength(buffer.type)} bytes at ${buffer.address}, ` +
        `phases ${buffer.firstPhase}–${buffer.lastPhase}`,
    );
  }
  return lines.join("\n");
}

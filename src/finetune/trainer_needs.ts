/**
 * What a trainer is made for, what that takes of memory, and where in the arena each part lies.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { availableMemoryBytes, formatBytes } from "../core/memory.ts";
import type { Target } from "../graph/operation.ts";
import { updateRule } from "../kernels/optimizer/optimizers.ts";
import type { OptimizerSettings, UpdateRule } from "../kernels/optimizer/rule.ts";
import type { Machine } from "../machines/machine.ts";
import { type Allocator, type Arena, ArenaSize, Region } from "../plan/arena.ts";
import type { ExecutorFactory } from "../plan/executor.ts";
import { alignUp } from "../plan/memory.ts";
import { planBytes, usualTile } from "../plan/plan.ts";
import { programBytes } from "../plan/program.ts";
import type { Pattern } from "../pruning/pattern.ts";
import type { GpuExecutor } from "../webgpu/executor.ts";
import { CompactMatrices } from "./compact.ts";
import { type GroupOptions, type ParameterGroup, parameterGroups } from "./groups.ts";
import { LazyTableSteps } from "./lazy_table.ts";
import { type BatchCapacity, placeTrainingMemory, type TrainingMemory } from "./memory.ts";
import { MovementPart } from "./movement_part.ts";
import type { Precision } from "./options.ts";
import { type ParameterLayout, parameterLayoutOf } from "./parameters.ts";
import { planStep, type StepParts } from "./step_plan.ts";
import type { TrainingModel } from "./training_model.ts";

/** Programs that fit in the arena at a time, of the largest batch; smaller ones take less. */
const reservedPrograms = 24;

/** All that 32 bits address, but for the first line of an arena, which stays unused. */
const maximumArenaBytes = 2 ** 32 - 64;

/** What a trainer is made for. */
export interface TrainerOptions<Example> {
  readonly model: TrainingModel<Example>;
  readonly machine: Machine;
  readonly workers: number;
  readonly createExecutor: ExecutorFactory;
  /** Most sequences in a batch. */
  readonly maximumSequences: number;
  /** Most columns (tokens) in a batch, all sequences together. */
  readonly maximumTokens: number;
  readonly seed: number;
  readonly optimizer: OptimizerSettings;
  /** Largest global gradient norm; 0 leaves gradients as they are. */
  readonly maximumNorm: number;
  /** How parameters are grouped; default: those that decay and those that do not. */
  readonly groups?: GroupOptions;
  /** Whether gradients of several batches make a step; default false. */
  readonly accumulates?: boolean;
  /** What masks prune together; default `unstructured`. */
  readonly pattern?: Pattern;
  /** What trains the scores of movement pruning; absent: there is none. */
  readonly scoreOptimizer?: OptimizerSettings;
  /** Whether pruned matrices train with sparse kernels once those are faster; default true. */
  readonly sparse?: boolean;
  /** Whether layers run again in the backward pass instead of being kept: less memory for about a tenth more time. */
  readonly checkpoints?: boolean;
  /** The GPU that takes the steps; the trainer disposes of it. Absent: the workers do. */
  readonly gpu?: GpuExecutor;
  /** Hears how many shaders of a GPU are compiled, of how many. */
  readonly compiling?: (done: number, total: number) => void;
  /** What a GPU keeps activations and their gradients in; default `fp32`. Weights and sums are float32 in any case. */
  readonly precision?: Precision;
}

/** What a trainer takes of memory, on a GPU where that takes the steps. */
export interface TrainerNeeds extends TrainerShape {
  /** Weights, gradients, states, and what is known of zeros. */
  readonly parameterBytes: number;
  readonly activationBytes: number;
  readonly programsBytes: number;
  /** The arena of the workers: all of that, or beside a GPU a copy of the parameters. */
  readonly arenaBytes: number;
}

/** What follows from the options and the device alone. */
export interface TrainerShape {
  readonly layout: ParameterLayout;
  readonly capacity: BatchCapacity;
  readonly rule: UpdateRule;
  readonly groups: readonly ParameterGroup[];
}

/** The shape of a trainer on a device whose batches have a multiple of `grain` columns. */
export function trainerShape<Example>(options: TrainerOptions<Example>, grain: number): TrainerShape {
  const layout = parameterLayoutOf(options.model);
  return {
    layout,
    capacity: {
      columns: alignUp(Math.max(1, options.maximumTokens), grain),
      sequences: alignUp(options.maximumSequences, grain),
    },
    rule: updateRule(options.optimizer),
    groups: parameterGroups(layout, options.groups),
  };
}

/**
 * Planning is pure: plans at made-up addresses tell how much memory the largest batch takes. Throws `InputError` when
 * that is more than there can be.
 */
export function trainerNeeds<Example>(options: TrainerOptions<Example>): TrainerNeeds {
  const shape = trainerShape(options, targetOf(options).tile);
  const size = new ArenaSize();
  const memory = placeMemory(options, shape, size);
  const parts = partsOf(options, shape, memory, size);
  const parameterBytes = size.byteLength;
  checkArenaBytes(parameterBytes, options);
  const request = { ...planOptions(options, shape), ...shape.capacity, memory, parts, activations: 0 };
  const modes = [options.accumulates ? "accumulate" : "train", "gradient", "evaluate"] as const;
  const plans = modes.map((mode) => planStep(mode, request));
  const sparseBytes = options.sparse === false ? 0 : parts.compact.planBytes;
  // Buffers are placed greedily, so that a plan of fewer may take a little more.
  const activationBytes = alignUp(1.02 * Math.max(...plans.map(planBytes)) + sparseBytes);
  // Programs of sparse matrices have more calls than dense ones.
  const programsBytes = reservedPrograms * Math.max(...plans.map((plan) => programBytes(plan)));
  size.allocate(activationBytes, "activations");
  size.allocate(programsBytes, "programs");
  checkArenaBytes(size.byteLength, options);
  return { ...shape, parameterBytes, activationBytes, programsBytes, arenaBytes: size.byteLength };
}

/** Where everything of a trainer lies. */
export interface TrainerPlaces {
  readonly memory: TrainingMemory;
  readonly parts: StepParts;
  /** Where a plan's own memory begins; `TrainerNeeds.activationBytes` long. */
  readonly activations: number;
  /** Where programs are written. */
  readonly programs: Region;
}

/** Takes an arena's memory as `trainerNeeds` counted it. */
export function placeTrainer<Example>(
  options: TrainerOptions<Example>,
  needs: TrainerNeeds,
  arena: Arena,
): TrainerPlaces {
  const memory = placeMemory(options, needs, arena);
  const parts = partsOf(options, needs, memory, arena);
  const { activationBytes, programsBytes } = needs;
  const activations = arena.allocate(activationBytes, "activations");
  const programs = new Region(arena.allocate(programsBytes, "programs"), programsBytes);
  parts.lazy?.attach(arena);
  parts.movement?.attach(arena);
  return { memory, parts, activations, programs };
}

function placeMemory<Example>(
  { model, accumulates = false }: TrainerOptions<Example>,
  { layout, capacity, rule, groups }: TrainerShape,
  allocator: Allocator,
): TrainingMemory {
  return placeTrainingMemory({
    layout,
    capacity,
    rule,
    groups: groups.length,
    inputs: model.inputs(capacity),
    lookup: model.lookup,
    accumulates,
  }, allocator);
}

function partsOf<Example>(
  options: TrainerOptions<Example>,
  { layout, capacity: { columns }, rule, groups }: TrainerShape,
  memory: TrainingMemory,
  allocator: Allocator,
): StepParts {
  const { pattern = "unstructured", machine, model: { lookup }, accumulates, scoreOptimizer } = options;
  const table = lookup && layout.slot(lookup.table);
  const isLazy = table && rule.lazy && !accumulates && groups.some(({ names }) => names.has(table.name)) &&
    LazyTableSteps.pays(table, columns);
  return {
    compact: new CompactMatrices(layout, { pattern, machine, at: memory }, allocator),
    lazy: isLazy ? new LazyTableSteps(table, lookup.ids, rule, memory) : undefined,
    movement: scoreOptimizer && new MovementPart(layout, scoreOptimizer, allocator),
  };
}

/** What all plans of a trainer are told alike. */
export function planOptions<Example>(
  options: TrainerOptions<Example>,
  { layout, rule, groups }: TrainerShape,
) {
  const { model, maximumNorm, checkpoints } = options;
  return { model, target: targetOf(options), layout, rule, groups, maximumNorm, checkpoints };
}

/** Kernels take 32-bit addresses, and what the system does not have it would take from the disk, or end the run. */
export function checkArenaBytes<Example>(
  bytes: number,
  { maximumTokens, checkpoints }: TrainerOptions<Example>,
): void {
  const available = availableMemoryBytes() ?? Infinity;
  if (bytes <= Math.min(maximumArenaBytes, available)) return;
  const wanted = available < maximumArenaBytes
    ? `${formatBytes(available)} of memory are free`
    : `an arena has at most ${formatBytes(maximumArenaBytes)}`;
  throw new InputError(
    `training needs ${
      formatBytes(bytes)
    } for batches of ${maximumTokens} tokens, and ${wanted}: take a smaller ` +
      `model, lower --batch-size, --tokens-per-batch or --max-length` +
      (checkpoints ? "" : ", or take --gradient-checkpointing"),
  );
}

/** What a trainer's kernels are made for. */
export function targetOf<Example>(
  { machine: { lanes, vectorRegisters }, workers }: TrainerOptions<Example>,
): Target {
  return { lanes, vectorRegisters, tile: usualTile(lanes), workers };
}

/**
 * Starting a trainer's engine on a GPU.
 * @module
 */
import { UnsupportedError } from "../core/errors.ts";
import { ArenaSize } from "../plan/arena.ts";
import type { Executor } from "../plan/executor.ts";
import type { GpuExecutor } from "../webgpu/executor.ts";
import { GpuEngine } from "./gpu_engine.ts";
import { placeParameters } from "./memory.ts";
import { checkArenaBytes, type TrainerNeeds, type TrainerOptions, trainerShape } from "./trainer_needs.ts";

/** An engine with what a trainer has beside it. */
export interface TrainerOnGpu<Example> {
  readonly needs: TrainerNeeds;
  /** Workers for what is no step: masks, passes over parameters. */
  readonly executor: Executor;
  readonly engine: GpuEngine<Example>;
}

/**
 * Starts workers beside a copy of the parameters, and takes room on the device for the largest batch. Where it fails, nothing of
 * it is left, nor the GPU. @throws UnsupportedError where the device lacks room or shaders for it.
 */
export async function createGpuEngine<Example>(
  options: TrainerOptions<Example>,
  gpu: GpuExecutor,
  startWorkers: (arenaBytes: number) => Promise<Executor>,
): Promise<TrainerOnGpu<Example>> {
  let executor: Executor | undefined;
  try {
    if (options.scoreOptimizer) {
      throw new UnsupportedError("Cannot prune by movement on a GPU: its scores are trained on the CPU");
    }
    const shape = trainerShape(options, gpu.target.columnGrain);
    const size = new ArenaSize();
    placeParameters(shape.layout, shape.rule, size);
    const arenaBytes = size.byteLength;
    checkArenaBytes(arenaBytes, options);
    executor = await startWorkers(arenaBytes);
    const { arena } = executor;
    const memory = placeParameters(shape.layout, shape.rule, arena);
    const engine = await GpuEngine.create(options, shape, { arena, memory }, gpu);
    return { needs: { ...shape, ...engine.deviceNeeds, programsBytes: 0, arenaBytes }, executor, engine };
  } catch (error) {
    await executor?.dispose();
    await gpu.dispose();
    throw error;
  }
}

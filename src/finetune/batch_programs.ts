/**
 * The programs of a trainer: one for each mode and batch size in tiles, made when first needed.
 *
 * They lie in a region of the arena; when it is full all are forgotten, and those still in use are made again.
 * @module
 */
import { unpackTiled } from "../graph/layout.ts";
import type { Operand } from "../graph/operation.ts";
import { type Executor, prepare } from "../plan/executor.ts";
import { alignUp } from "../plan/memory.ts";
import { type Plan, planBytes } from "../plan/plan.ts";
import { type Program, programBytes } from "../plan/program.ts";
import type { BatchCapacity } from "./memory.ts";
import { type BatchAnswers, type BatchOutput, type Draw, drawKey } from "./step_engine.ts";
import { planStep, planUpdate, type StepMode } from "./step_plan.ts";
import {
  planOptions,
  targetOf,
  type TrainerNeeds,
  type TrainerOptions,
  type TrainerPlaces,
} from "./trainer_needs.ts";
import type { InputViews } from "./training_model.ts";

interface PreparedPlan {
  readonly program: Program;
  readonly outputs: ReadonlyMap<string, Operand>;
}

/** Runs batches and what belongs between them. */
export class BatchPrograms<Example> {
  readonly #options: TrainerOptions<Example>;
  readonly #needs: TrainerNeeds;
  readonly #places: TrainerPlaces;
  readonly #executor: Executor;
  readonly #prepared = new Map<string, PreparedPlan>();

  constructor(
    options: TrainerOptions<Example>,
    needs: TrainerNeeds,
    places: TrainerPlaces,
    executor: Executor,
  ) {
    this.#options = options;
    this.#needs = needs;
    this.#places = places;
    this.#executor = executor;
  }

  /** Runs a batch; without a draw nothing in it is random. Gives the loss. */
  async run(mode: StepMode, batch: readonly Example[], draw?: Draw): Promise<number> {
    return this.#lossOf(await this.#run(mode, batch, draw));
  }

  /** Runs a batch without anything random, and copies what the model answers. */
  async evaluate(batch: readonly Example[]): Promise<BatchAnswers> {
    const { tile } = targetOf(this.#options);
    const operands = await this.#run("evaluate", batch);
    const outputs = new Map<string, BatchOutput>();
    for (const [name, { address, type: { shape: [rows, stride], layout } }] of operands) {
      if (layout !== "tiled") continue;
      const tiled = this.#executor.arena.float32(address, rows * stride);
      outputs.set(name, { values: unpackTiled(tiled, rows, stride, tile), rows, stride });
    }
    return { loss: this.#lossOf(operands), outputs };
  }

  /** Updates by the sums of gradients. */
  update(): Promise<void> {
    return this.#runPlan("update", () => planUpdate(this.#planRequest()));
  }

  /** Makes rows of the lookup table take the steps that they missed. */
  async flush(): Promise<void> {
    const { parts: { lazy }, activations } = this.#places;
    if (!lazy || lazy.history.length === 0) return;
    await this.#runPlan("flush", () => lazy.flushPlan(targetOf(this.#options), activations));
    lazy.history.clear();
  }

  /** To be called when plans have changed. */
  forget(): void {
    this.#prepared.clear();
    this.#places.programs.clear();
  }

  /** Gives the operands of the model's results. */
  async #run(mode: StepMode, batch: readonly Example[], draw?: Draw): Promise<ReadonlyMap<string, Operand>> {
    const { model, seed } = this.#options;
    const { arena } = this.#executor;
    const { memory, parts } = this.#places;
    const { tile } = targetOf(this.#options);
    const columns = alignUp(Math.max(model.sizeOf(batch).columns, 1), tile);
    const size = { columns, sequences: this.#needs.capacity.sequences };
    const { program, outputs } = await this.#prepare(
      `${mode} ${columns} ${model.variant ?? ""}`,
      () => planStep(mode, { ...this.#planRequest(), ...size }),
    );
    model.fill(
      batch,
      this.#views(size),
      draw && drawKey(seed, "batch", draw),
      mode === "evaluate" ? "evaluate" : "train",
    );
    if (mode === "train") parts.lazy?.list(arena, columns);
    if (draw) {
      const key = drawKey(seed, "dropout", draw);
      arena.int32(memory.seed, 2).set([key.low | 0, key.high | 0]);
    }
    await this.#executor.run(program);
    return outputs;
  }

  async #runPlan(key: string, makePlan: () => Plan): Promise<void> {
    const { program } = await this.#prepare(key, makePlan);
    await this.#executor.run(program);
  }

  async #prepare(key: string, makePlan: () => Plan): Promise<PreparedPlan> {
    const known = this.#prepared.get(key);
    if (known) return known;
    const plan = makePlan();
    const { activationBytes } = this.#needs;
    if (planBytes(plan) > activationBytes) {
      throw new RangeError(`Cannot run ${key}: it takes ${planBytes(plan)} bytes of ${activationBytes}`);
    }
    const region = this.#places.programs;
    if (!region.fits(programBytes(plan))) this.forget();
    const program = await prepare(this.#executor, plan, region);
    const prepared = { program, outputs: plan.outputs };
    this.#prepared.set(key, prepared);
    return prepared;
  }

  #lossOf(operands: ReadonlyMap<string, Operand>): number {
    return this.#executor.arena.float32(operands.get("loss")!.address, 1)[0];
  }

  #planRequest() {
    const { memory, parts, activations } = this.#places;
    return { ...planOptions(this.#options, this.#needs), memory, parts, activations };
  }

  #views(size: BatchCapacity): InputViews {
    const { arena } = this.#executor;
    return new Map(
      Object.entries(this.#options.model.inputs(size)).map(([name, { dtype, length }]) => {
        const address = this.#places.memory.inputs.get(name)!;
        return [name, dtype === "i32" ? arena.int32(address, length) : arena.float32(address, length)];
      }),
    );
  }
}

/**
 * Pruning in the training loop: which phase is on, and what each method wants before steps and at refreshes.
 * @module
 */
import type { BatchLimit } from "../data/batches.ts";
import type { ExampleSet } from "../data/example_set.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import { obertBatchSize } from "../pruning/obert/options.ts";
import { isMovement, type PruningPhase } from "../pruning/phase.ts";
import { matchTargets } from "../pruning/targets.ts";
import type { ExecutorOptions } from "./fisher_arena.ts";
import { movementRefresh } from "./movement.ts";
import type { MovementTarget } from "./movement_task.ts";
import { fisherBytes, obertRefresh } from "./obert.ts";
import { refreshMasks } from "./prune.ts";
import type { Trainer } from "./trainer.ts";

/** What a pruner is made of. */
export interface PrunerOptions<Example> {
  readonly trainer: Trainer<Example>;
  /** In the order of their begin. */
  readonly phases: readonly PruningPhase[];
  /** Examples that are trained on, for the gradients of oBERT. */
  readonly examples: ExampleSet<Example>;
  /** What the trainer's memory is made for. */
  readonly capacity: BatchLimit;
  /** What to make workers of. */
  readonly executors: ExecutorOptions;
  readonly seed: number;
  /** Hears how far a refresh is that takes long. */
  readonly say?: (text: string) => void;
}

/** Renews the masks of a run. */
export class Pruner<Example> {
  /** Step of the last refresh: from here on masks are constant. 0 where nothing is pruned. */
  readonly lastRefresh: number;
  readonly #options: PrunerOptions<Example>;

  constructor(options: PrunerOptions<Example>) {
    this.#options = options;
    this.lastRefresh = Math.max(0, ...options.phases.map(({ schedule }) => schedule.end));
  }

  /** Most bytes that a refresh takes besides the trainer's memory: those of oBERT's Fisher matrices. */
  get refreshBytes(): number {
    const { trainer, phases } = this.#options;
    return Math.max(
      0,
      ...phases.map((phase) => {
        const { method: options, pattern } = phase;
        return options.name === "obert"
          ? fisherBytes(trainer, { names: this.#names(phase), pattern, options })
          : 0;
      }),
    );
  }

  /** Whether masks are renewed before the step that follows so many. */
  refreshes(step: number): boolean {
    return this.#options.phases.some(({ schedule }) => schedule.refreshes(step));
  }

  /** Renews the masks, and gives the sparsity that all prunable weights together have then. */
  async refresh(step: number): Promise<number> {
    let sparsity = 0;
    for (const phase of this.#options.phases) {
      if (phase.schedule.refreshes(step)) sparsity = await this.#refresh(phase, step);
    }
    return sparsity;
  }

  /** Tells the scores of movement pruning their rate: `rateFactor` is that of the run's rate to its peak. */
  beforeStep(step: number, rateFactor: number): void {
    const { trainer, phases } = this.#options;
    if (!trainer.movement?.activity) return;
    const phase = phases.findLast(({ schedule, method }) => isMovement(method) && schedule.begin <= step);
    if (!phase || !isMovement(phase.method)) return;
    const { method } = phase;
    trainer.movement.tell({
      learningRate: method.scoreLearningRate * rateFactor,
      penalty: method.name === "soft-movement" ? method.penalty * progressOf(phase, step) : undefined,
    });
  }

  async #refresh(phase: PruningPhase, step: number): Promise<number> {
    const { trainer } = this.#options;
    const { method } = phase;
    if (method.name === "obert") return await this.#refreshByFisher(phase, method, step);
    if (!isMovement(method)) return await refreshMasks(trainer, phase, step);
    const { schedule, scope, pattern } = phase;
    if (step === schedule.begin) {
      await trainer.beginMovement([...this.#names(phase)], method.name === "soft-movement");
    }
    const target: MovementTarget = method.name === "soft-movement"
      ? { threshold: method.threshold * progressOf(phase, step) }
      : { scope, sparsity: schedule.sparsity(step) };
    const sparsity = await movementRefresh(trainer, pattern, target);
    if (step === schedule.end) await trainer.endMovement();
    return sparsity;
  }

  #refreshByFisher(
    phase: PruningPhase,
    options: Extract<PruningPhase["method"], { name: "obert" }>,
    step: number,
  ): Promise<number> {
    const { trainer, executors, say } = this.#options;
    const { pattern, scope, schedule } = phase;
    let told = 0;
    return obertRefresh(trainer, {
      names: this.#names(phase),
      pattern,
      scope,
      sparsity: schedule.sparsity(step),
      options,
      batches: this.#fisherBatches(options.gradients, step),
      executors,
      progress(done, total) {
        const quarter = Math.floor(4 * done / total);
        if (quarter > told) say?.(`oBERT at step ${step}: ${done} of ${total} gradients`);
        told = quarter;
      },
    });
  }

  #names({ targets }: PruningPhase): ReadonlySet<string> {
    return new Set(matchTargets(targets, this.#options.trainer.layout.slots.map(({ name }) => name)));
  }

  /** Batches of examples drawn anew at each refresh, no larger than those that are trained on. */
  #fisherBatches(count: number, step: number): Example[][] {
    const { examples: { lengths, at }, capacity, seed } = this.#options;
    const stream = new RandomStream(randomKey(seed, "fisher", step));
    return Array.from({ length: count }, () => {
      const batch: Example[] = [];
      let columns = 0;
      while (batch.length < Math.min(obertBatchSize, capacity.sequences)) {
        const index = stream.below(lengths.length);
        columns += lengths[index];
        if (columns > capacity.tokens) break;
        batch.push(at(index));
      }
      return batch;
    });
  }
}

/** How far the phase's sparsity has risen, 0 to 1. */
function progressOf({ schedule }: PruningPhase, step: number): number {
  const final = schedule.sparsity(schedule.end);
  return final === 0 ? 1 : schedule.sparsity(step) / final;
}

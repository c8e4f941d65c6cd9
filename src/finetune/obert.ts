/**
 * Pruning by oBERT (Kurtic et al., arXiv 2203.07259) in training: gradients of the model as it is, the Fisher matrices they
 * make, the weights whose removal costs least, and the change of the others that makes up for them.
 *
 * Nothing is written to the trainer before all is known, so that every Fisher matrix is of the same weights, however many
 * of them are in memory at a time: less memory means more passes over the gradients, and the same masks and weights.
 * @module
 */
import { availableMemoryBytes } from "../core/memory.ts";
import { type PrunableMatrix, pruneMasks, type PruningScope } from "../pruning/method.ts";
import { checkObert, type ObertOptions } from "../pruning/obert/options.ts";
import { fisherPlaces } from "../pruning/obert/places.ts";
import { blockShape, collapseToBlocks, type Pattern } from "../pruning/pattern.ts";
import { gatheredScores } from "../pruning/scores.ts";
import { sparsityOfMasks } from "../pruning/sparsity.ts";
import { type ExecutorOptions, FisherArena, type FisherMatrix } from "./fisher_arena.ts";
import { planWaves, type Wave } from "./fisher_waves.ts";
import { matricesOf } from "./prune.ts";
import type { Trainer } from "./trainer.ts";

/** What a refresh is told. */
export interface ObertRequest<Example> {
  /** Weight names of the matrices to prune. */
  readonly names: ReadonlySet<string>;
  readonly pattern: Pattern;
  readonly scope: PruningScope;
  /** Share of the blocks of these matrices to be pruned in the end. */
  readonly sparsity: number;
  readonly options: ObertOptions;
  /** `options.gradients` batches, the same for every estimate. */
  readonly batches: readonly (readonly Example[])[];
  /** What to make workers of. */
  readonly executors: ExecutorOptions;
  /** Bytes for Fisher matrices; default: half of what the system has left. */
  readonly budget?: number;
  /** Is told of each gradient done, of how many. */
  readonly progress?: (done: number, total: number) => void;
}

/** Memory for Fisher matrices where the system does not say what it has. */
const unknownBudget = 2 ** 31;

/** What 32 bits address, less programs and what else an arena has. */
const largestArena = 2 ** 32 - 2 ** 20;

/** Most bytes that Fisher matrices may take now: half of what the system has left. */
function fisherBudget(): number {
  return (availableMemoryBytes() ?? unknownBudget) / 2;
}

/** Bytes that a refresh takes besides the trainer's memory. */
export function fisherBytes(
  trainer: Trainer<never>,
  request: Pick<ObertRequest<never>, "names" | "pattern" | "options">,
): number {
  return Math.min(FisherArena.bytesOf(fisherMatrices(trainer, request)), fisherBudget());
}

function fisherMatrices<Example>(
  trainer: Trainer<Example>,
  { names, pattern, options: { blockSize } }: Pick<ObertRequest<Example>, "names" | "pattern" | "options">,
): FisherMatrix[] {
  const unit = blockShape(pattern);
  return matricesOf(trainer)
    .filter(({ name }) => names.has(name))
    .map((matrix) => ({ name: matrix.name, places: fisherPlaces(matrix, unit, blockSize) }));
}

/** Renews the masks, and gives the sparsity that all prunable weights together have then. */
export async function obertRefresh<Example>(
  trainer: Trainer<Example>,
  request: ObertRequest<Example>,
): Promise<number> {
  const { options: { recomputations, gradients }, sparsity, batches, names } = request;
  checkObert(request.options);
  if (batches.length !== gradients) {
    throw new RangeError(`Cannot prune by oBERT: there are ${batches.length} batches, wanted ${gradients}`);
  }
  await trainer.settle();
  const before = sparsityOfMasks(matricesOf(trainer).filter(({ name }) => names.has(name))).overall;
  const refresh = await ObertRefresh.create(trainer, request);
  try {
    for (let part = 1; part <= recomputations; part++) {
      await refresh.prune(before + Math.max(0, sparsity - before) * part / recomputations);
    }
  } finally {
    await refresh.dispose();
  }
  return sparsityOfMasks(matricesOf(trainer)).overall;
}

/** A prunable matrix with its mask, as `matricesOf` gives it. */
type MaskedMatrix = PrunableMatrix & { readonly mask: Uint32Array };

/** One refresh, with its memory. */
class ObertRefresh<Example> {
  /** Matrices of the last wave whose factors are in memory. */
  #loaded: Wave<FisherMatrix> | undefined;
  #done = 0;

  private constructor(
    private readonly trainer: Trainer<Example>,
    private readonly request: ObertRequest<Example>,
    private readonly waves: readonly Wave<FisherMatrix>[],
    private readonly arenas: readonly FisherArena[],
  ) {}

  static async create<Example>(
    trainer: Trainer<Example>,
    request: ObertRequest<Example>,
  ): Promise<ObertRefresh<Example>> {
    const { executors, budget = fisherBudget() } = request;
    const waves = planWaves({
      matrices: fisherMatrices(trainer, request),
      bytesOf: (matrix) => FisherArena.bytesOf([matrix]),
      nameOf: ({ name }) => name,
      budget,
      arenaBytes: largestArena,
    });
    const sizes: number[] = [];
    for (const wave of waves) {
      wave.forEach((list, index) => sizes[index] = Math.max(sizes[index] ?? 0, FisherArena.bytesOf(list)));
    }
    const arenas: FisherArena[] = [];
    try {
      for (const bytes of sizes) arenas.push(await FisherArena.create(executors, bytes));
    } catch (error) {
      for (const arena of arenas) await arena.dispose();
      throw error;
    }
    return new ObertRefresh(trainer, request, waves, arenas);
  }

  /** One estimate, and pruning by it. */
  async prune(sparsity: number): Promise<void> {
    const { trainer, waves, request: { scope, pattern, options } } = this;
    const matrices = this.#matrices();
    this.#loaded = undefined;
    let masks = new Map<string, Uint32Array>();
    if (scope === "global") {
      const scores = new Map<string, Float32Array>();
      for (const wave of waves) {
        await this.#load(wave, matrices);
        for (const [name, values] of this.#scores(wave)) scores.set(name, values.slice());
      }
      masks = this.#choose([...matrices.values()], scores, sparsity);
    }
    const weights = new Map<string, Float32Array>();
    // The wave that was estimated last is still there.
    for (const wave of waves.toReversed()) {
      await this.#load(wave, matrices);
      const members = wave.flat().map(({ name }) => matrices.get(name)!);
      if (scope === "layer") {
        for (const [name, mask] of this.#choose(members, this.#scores(wave), sparsity)) masks.set(name, mask);
      }
      for (const { name, values } of members) weights.set(name, new Float32Array(values.length));
      for (const [index] of wave.entries()) {
        await this.arenas[index].remove(
          (name) => removedUnits(matrices.get(name)!, masks.get(name)!, pattern),
          options.jointly ?? false,
          (name) => weights.get(name)!,
        );
      }
    }
    for (const [name, { values, mask }] of matrices) {
      values.set(weights.get(name)!);
      mask.set(masks.get(name)!);
    }
    trainer.applyMask();
  }

  async dispose(): Promise<void> {
    for (const arena of this.arenas) await arena.dispose();
  }

  /** The matrices to prune: live views. */
  #matrices(): ReadonlyMap<string, MaskedMatrix> {
    const { names } = this.request;
    const matrices = matricesOf(this.trainer);
    return new Map(matrices.filter(({ name }) => names.has(name)).map((matrix) => [matrix.name, matrix]));
  }

  /** Makes the factors and scores of a wave. */
  async #load(wave: Wave<FisherMatrix>, matrices: ReadonlyMap<string, MaskedMatrix>): Promise<void> {
    if (this.#loaded === wave) return;
    const { trainer, request: { batches, options, progress, scope }, waves } = this;
    const arenas = wave.map((_, index) => this.arenas[index]);
    wave.forEach((list, index) => arenas[index].begin(list));
    const passes = scope === "global" ? 2 * waves.length - 1 : waves.length;
    const total = passes * options.recomputations * batches.length;
    for (const batch of batches) {
      await trainer.gradient(batch);
      const { gradients, layout } = trainer;
      const gradientOf = (name: string) => {
        const { offset, length } = layout.slot(name);
        return gradients.subarray(offset, offset + length);
      };
      for (const arena of arenas) await arena.add(gradientOf);
      progress?.(++this.#done, total);
    }
    for (const arena of arenas) {
      await arena.factor(
        options.dampening,
        (name) => matrices.get(name)!.values,
        (name) => matrices.get(name)!.mask,
      );
    }
    this.#loaded = wave;
  }

  /** The scores of a wave's units, by matrix: live views. */
  #scores(wave: Wave<FisherMatrix>): ReadonlyMap<string, Float32Array> {
    return new Map(
      wave.flatMap((list, index) => list.map(({ name }) => [name, this.arenas[index].scores(name)])),
    );
  }

  #choose(
    matrices: readonly MaskedMatrix[],
    scores: ReadonlyMap<string, Float32Array>,
    sparsity: number,
  ): Map<string, Uint32Array> {
    const { pattern, scope } = this.request;
    return pruneMasks(matrices, {
      method: gatheredScores((name) => scores.get(name)!, "block"),
      pattern,
      scope,
      sparsity,
      previous: new Map(matrices.map(({ name, mask }) => [name, mask])),
    });
  }
}

/** The units that a mask prunes and the one before it did not. */
function removedUnits(matrix: MaskedMatrix, mask: Uint32Array, pattern: Pattern): Uint32Array {
  const [before, after] = [matrix.mask, mask].map((bits) => collapseToBlocks(bits, pattern, matrix));
  return before.map((word, index) => word & ~after[index]);
}

/**
 * Pruning modifiers laid over the steps of a run.
 * @module
 */
import { movementDefaults } from "../pruning/movement.ts";
import { checkObert, obertBatchSize, type ObertOptions } from "../pruning/obert/options.ts";
import { parsePattern } from "../pruning/pattern.ts";
import { isMovement, type PruningMethodSettings, type PruningPhase } from "../pruning/phase.ts";
import { constantSchedule, type PruningSchedule, pruningSchedule } from "../pruning/schedule.ts";
import type { LayerSparsity } from "../pruning/sparsity.ts";
import { allPrunable, matchTargets } from "../pruning/targets.ts";
import { atPlace, refuse } from "./checks.ts";
import { type GradualPruningModifier, type Modifier, type ModifierOf } from "./modifiers.ts";
import { type RunLength, spanOf, stepsIn, stepsOf, type StepSpan } from "./positions.ts";
import { fromParam } from "./values.ts";

/** A run as pruning sees it. */
export interface PrunedRun extends RunLength {
  /** The prunable matrices as they are before the run. */
  readonly prunable: readonly LayerSparsity[];
}

type PruningModifier = GradualPruningModifier | ModifierOf<"ConstantPruningModifier">;

/** What a modifier asks of some matrices: one of them for each entry of a `final_sparsity` map. */
interface Part extends StepSpan {
  readonly modifier: PruningModifier;
  readonly targets: readonly string[];
  /** The matrices that the targets mean. */
  readonly names: readonly string[];
  /** Sparsity at the end; undefined: what there is. */
  readonly finalSparsity?: number;
}

/**
 * The phases of a run, in the order of their begin.
 *
 * The last refresh is before the last step at the latest, so that every mask is trained with. `__FROM_PARAM__` is the
 * sparsity that earlier modifiers leave, or the model's own; matrices that differ in it become phases of their own, unless
 * they are ranked together.
 * @throws InputError for targets that match nothing, two modifiers at once about one matrix, a sparsity that falls from one
 * modifier to the next, and places outside of the run.
 */
export function pruningPhases(modifiers: readonly Modifier[], run: PrunedRun): PruningPhase[] {
  const parts = modifiers.filter(isPruning).flatMap((modifier) => partsOf(modifier, run));
  parts.sort((a, b) => a.begin - b.begin);
  parts.forEach((part, index) => parts.slice(0, index).forEach((earlier) => checkApart(earlier, part)));
  const sparsities = new Map(run.prunable.map((layer) => [layer.name, { ...layer, by: "the model" }]));
  return parts.flatMap((part) => {
    const layers = part.names.map((name) => sparsities.get(name)!);
    if (part.modifier.modifier === "ConstantPruningModifier") return [constantPhase(part)];
    const phases = gradualPhases(part, part.modifier, layers, run);
    for (const layer of layers) {
      sparsities.set(layer.name, { ...layer, sparsity: part.finalSparsity!, by: part.modifier.place });
    }
    return phases;
  });
}

function isPruning(modifier: Modifier): modifier is PruningModifier {
  return modifier.modifier === "ConstantPruningModifier" || "final_sparsity" in modifier;
}

function isGradual(modifier: PruningModifier): modifier is GradualPruningModifier {
  return modifier.modifier !== "ConstantPruningModifier";
}

function partsOf(modifier: PruningModifier, run: PrunedRun): Part[] {
  const { begin, end } = spanOf(modifier, run);
  const last = Math.max(0, stepsOf(run) - 1);
  const known = run.prunable.map(({ name }) => name);
  const part = (params: readonly string[], finalSparsity?: number): Part => {
    const targets = params.length > 0 ? params : [allPrunable];
    const names = atPlace(modifier, () => matchTargets(targets, known));
    return {
      modifier,
      targets,
      names,
      finalSparsity,
      begin: Math.min(last, begin),
      end: Math.min(last, end),
    };
  };
  if (modifier.modifier === "ConstantPruningModifier") return [part(modifier.params)];
  const { final_sparsity } = modifier;
  if (typeof final_sparsity === "number") return [part(modifier.params, final_sparsity)];
  return Array.from(final_sparsity, ([sparsity, params]) => part(params, sparsity));
}

/** Constant pruning is over at its end, the others refresh there. */
function checkApart(earlier: Part, later: Part): void {
  const isOver = earlier.modifier.modifier === "ConstantPruningModifier"
    ? earlier.end <= later.begin && earlier.begin < later.begin
    : earlier.end < later.begin;
  if (
    !isOver && [earlier, later].every(({ modifier }) => isGradual(modifier) && isMovement(methodOf(modifier)))
  ) {
    refuse(
      later.modifier,
      `it trains scores from step ${later.begin}, and ${earlier.modifier.place} until step ${earlier.end}`,
      "movement to one sparsity at a time",
    );
  }
  const shared = isOver ? undefined : later.names.find((name) => earlier.names.includes(name));
  if (shared === undefined) return;
  refuse(
    later.modifier,
    `it prunes ${shared} from step ${later.begin}, and ${earlier.modifier.place} until step ${earlier.end}`,
    "one modifier at a time",
  );
}

function constantPhase({ targets, begin }: Part): PruningPhase {
  return {
    method: { name: "constant" },
    pattern: "unstructured",
    scope: "layer",
    targets,
    schedule: constantSchedule(begin),
  };
}

function gradualPhases(
  part: Part,
  modifier: GradualPruningModifier,
  layers: readonly (LayerSparsity & { readonly by: string })[],
  run: PrunedRun,
): PruningPhase[] {
  const { inter_func, init_sparsity, exponent } = modifier;
  const finalSparsity = part.finalSparsity!;
  const { begin, end } = part;
  const every = refreshInterval(modifier, part, run);
  const phase = (initialSparsity: number, targets: readonly string[]): PruningPhase => {
    const schedule = pruningSchedule(
      inter_func,
      { initialSparsity, finalSparsity, begin, end, every, exponent },
    );
    const method = methodOf(modifier);
    if (isMovement(method)) checkMovement(modifier, schedule);
    const scope = modifier.global_sparsity ? "global" : "layer";
    return { method, pattern: parsePattern(modifier.mask_type), scope, targets, schedule };
  };
  const first = init_sparsity === fromParam || inter_func === "one-shot" ? finalSparsity : init_sparsity;
  for (const { name, sparsity, by } of layers) {
    // A model may bring more zeros than a schedule begins with; a recipe that contradicts itself is a mistake.
    if (by === "the model" && init_sparsity !== fromParam) continue;
    if (sparsity <= first) continue;
    refuse(
      modifier,
      `${
        first === finalSparsity ? "final_sparsity" : "init_sparsity"
      } is ${first} where ${by} leaves ${name} at ${sparsity}`,
      `at least ${sparsity}`,
    );
  }
  if (init_sparsity !== fromParam) return [phase(init_sparsity, part.targets)];
  if (modifier.global_sparsity) return [phase(sparsityTogether(layers), part.targets)];
  const groups = Map.groupBy(layers, ({ sparsity }) => sparsity);
  if (groups.size === 1) return [phase(layers[0].sparsity, part.targets)];
  return Array.from(groups, ([sparsity, group]) => phase(sparsity, group.map(({ name }) => name)));
}

/** Scores of movement are trained between refreshes, so that the first has none. */
function checkMovement(modifier: GradualPruningModifier, { begin, sparsity }: PruningSchedule): void {
  if (sparsity(begin) === 0) return;
  refuse(
    modifier,
    `it prunes to ${
      sparsity(begin)
    } at its first refresh, step ${begin}, when movement has trained no scores`,
    "a ramp from init_sparsity 0 to a later end",
  );
}

/** Steps between refreshes; without a word about it, every step, as in SparseML. */
function refreshInterval(modifier: GradualPruningModifier, { begin, end }: StepSpan, run: RunLength): number {
  const { update_steps, updates, update_frequency = -1 } = modifier;
  if (update_steps !== undefined) return update_steps;
  if (updates !== undefined) return Math.max(1, Math.ceil((end - begin) / updates));
  return update_frequency === -1 ? 1 : stepsIn(update_frequency, run);
}

function methodOf(modifier: GradualPruningModifier): PruningMethodSettings {
  switch (modifier.modifier) {
    case "OBSPruningModifier":
      return obertOf(modifier);
    case "MovementPruningModifier": {
      const { soft, score_learning_rate: scoreLearningRate } = modifier;
      const { penalty = movementDefaults.penalty, threshold = movementDefaults.threshold } = modifier;
      return soft
        ? { name: "soft-movement", scoreLearningRate, penalty, threshold }
        : { name: "movement", scoreLearningRate };
    }
    case "GMPruningModifier":
    case "MagnitudePruningModifier":
      return modifier.score_type === "movement"
        ? { name: "movement", scoreLearningRate: movementDefaults.scoreLearningRate }
        : { name: "magnitude" };
    case "GlobalMagnitudePruningModifier":
      return { name: "magnitude" };
  }
}

function obertOf(modifier: ModifierOf<"OBSPruningModifier">): PruningMethodSettings {
  const batchSize = modifier.grad_sampler_kwargs?.batch_size ?? obertBatchSize;
  if (batchSize !== obertBatchSize) {
    refuse(
      modifier,
      `batch_size of grad_sampler_kwargs is ${batchSize}`,
      `${obertBatchSize}, the one size there is`,
    );
  }
  const options: ObertOptions = {
    gradients: modifier.num_grads,
    dampening: modifier.damp,
    blockSize: modifier.fisher_block_size,
    recomputations: modifier.num_recomputations,
    ...(modifier.jointly === undefined ? {} : { jointly: modifier.jointly }),
  };
  atPlace(modifier, () => checkObert(options));
  return { name: "obert", ...options };
}

function sparsityTogether(layers: readonly LayerSparsity[]): number {
  const weights = layers.reduce((sum, layer) => sum + layer.weights, 0);
  return layers.reduce((sum, layer) => sum + layer.sparsity * layer.weights, 0) / weights;
}

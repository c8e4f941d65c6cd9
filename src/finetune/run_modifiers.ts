/**
 * What a run is to do when, as modifiers: those of a recipe, and the flags' where the recipe is silent.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { pathKind } from "../core/files.ts";
import type { PruningMethodName, PruningOptions } from "../pruning/options.ts";
import { isMovement } from "../pruning/phase.ts";
import { type FlagOptions, modifiersOfFlags, overlay, type PruningFlags } from "../recipes/flags.ts";
import type { Modifier } from "../recipes/modifiers.ts";
import { parseRecipe } from "../recipes/parse.ts";
import { checkBesideRecipe } from "./beside_recipe.ts";
import { defaultPruneRefreshes, defaultWarmupRatio, type FinetuneSettings } from "./options.ts";
import { takesWarmup } from "./schedules/mod.ts";

/**
 * The modifiers of a run. A recipe says all there is about pruning and distillation; of the rest, what it is silent about
 * is as the flags have it. Throws `InputError` for a recipe that cannot be read, and for settings that make no sense.
 */
export async function modifiersOf(settings: FinetuneSettings): Promise<readonly Modifier[]> {
  const { epochs, optimizer, optimizerOptions, metaMode, metaOptions, weightDecay, recipe } = settings;
  const common = {
    epochs,
    learningRate: {
      schedule: settings.learningRateSchedule,
      peak: settings.learningRate,
      options: { ...settings.scheduleOptions, ...warmupOf(settings) } as FlagOptions,
    },
    weightDecay,
    optimizer: { name: optimizer, constants: optimizerOptions as FlagOptions, metaMode, metaOptions },
  };
  if (recipe === undefined) {
    if (settings.recipeArguments !== undefined) {
      throw new InputError(`--recipe-args is ${settings.recipeArguments}: wanted --recipe with it`);
    }
    const { teacher, hardness, temperature } = settings;
    const distillation = teacher === undefined ? undefined : { teacher, hardness, temperature };
    return modifiersOfFlags({ ...common, pruning: pruningOf(settings), distillation });
  }
  const modifiers = await recipeOf(recipe, settings.recipeArguments);
  checkBesideRecipe(recipe, modifiers, givenIn(settings));
  return overlay(modifiersOfFlags(common), modifiers);
}

/** The modifiers of a recipe file. Throws `InputError` for one that cannot be read. */
export async function recipeOf(recipe: string, recipeArgs: string | undefined): Promise<readonly Modifier[]> {
  if (await pathKind(recipe) !== "file") {
    throw new InputError(`--recipe is ${recipe}: wanted a recipe file, .yaml or .md`);
  }
  return parseRecipe(await Deno.readTextFile(recipe), { source: recipe, recipeArgs }).modifiers;
}

/** Settings that have no default: somebody wants them. A recipe may well take the place of those that have one. */
function givenIn(settings: FinetuneSettings): (readonly [flag: string, value: unknown])[] {
  const given = [
    ["--meta-mode", settings.metaMode],
    ["--meta-options", settings.metaOptions],
    ["--lr-scheduler-kwargs", settings.scheduleOptions],
    ["--warmup-steps", settings.warmupSteps],
    ["--pruning-options", settings.pruningOptions],
    ["--prune-targets", settings.pruningTargets],
    ["--teacher", settings.teacher],
  ] as const;
  return given.filter(([, value]) => value !== undefined);
}

function warmupOf(
  { warmupRatio, warmupSteps, learningRateSchedule }: FinetuneSettings,
): { warmupRatio?: number; warmupSteps?: number } {
  if (warmupSteps !== undefined) return { warmupSteps, warmupRatio };
  if (warmupRatio !== undefined) return { warmupRatio };
  return takesWarmup(learningRateSchedule) ? { warmupRatio: defaultWarmupRatio } : {};
}

/** Constants that a pruning method takes. */
const constantsOf: Readonly<Record<PruningMethodName, readonly (keyof PruningOptions)[]>> = {
  "magnitude": [],
  "constant": [],
  "movement": ["scoreLearningRate"],
  "soft-movement": ["scoreLearningRate", "penalty", "threshold"],
  "obert": ["gradients", "dampening", "blockSize", "recomputations", "jointly"],
};

function pruningOf(settings: FinetuneSettings): PruningFlags {
  const { pruningMethod: method, pruningOptions = {}, pattern } = settings;
  if (!Object.hasOwn(constantsOf, method)) {
    throw new InputError(
      `--pruning-method is ${method}: wanted one of ${Object.keys(constantsOf).join(", ")}`,
    );
  }
  const taken: readonly string[] = constantsOf[method];
  for (const [name, value] of Object.entries(pruningOptions)) {
    if (taken.includes(name)) continue;
    throw new InputError(
      `--pruning-options has ${name}, ${value}: ${method} takes ${taken.join(", ") || "none"}`,
    );
  }
  return {
    method,
    pattern,
    sparsity: settings.sparsity,
    schedule: settings.pruningSchedule,
    scope: settings.scope,
    targets: settings.pruningTargets,
    begin: settings.pruneBegin,
    end: settings.pruneEnd,
    refreshes: settings.pruneRefreshes ?? (isMovement({ name: method }) ? undefined : defaultPruneRefreshes),
    ...pruningOptions,
  };
}

/**
 * Modifiers laid over the optimiser steps of a run: what the training loop asks at each of them.
 * @module
 */
import { updateRule } from "../kernels/optimizer/optimizers.ts";
import type { PruningPhase } from "../pruning/phase.ts";
import { atPlace, refuse } from "../recipes/checks.ts";
import type { Modifier, ModifierName, ModifierOf } from "../recipes/modifiers.ts";
import { epochsOf, spanOf, stepsOf, type StepSpan } from "../recipes/positions.ts";
import { type PrunedRun, pruningPhases } from "../recipes/pruning_phases.ts";
import { learningRatesOf, type Rates } from "./learning_rates.ts";
import { type MetaMode, type MetaOptions, metaOptions } from "./meta/options.ts";
import { type OptimizerOptions, optimizerSettingsOf } from "./optimizer_options.ts";

/** A run before its modifiers. */
export interface TimelineRun extends PrunedRun {
  /** The rate where no modifier has set one yet. */
  readonly learningRate: number;
  /** The decay where no modifier has set one yet. */
  readonly weightDecay: number;
  /** The teacher given outside of the modifiers, which it takes precedence over; `disable`: none is asked. */
  readonly teacher?: string;
}

/** Distillation from `begin`, before `end`. The teacher `dense` is this model just before it is pruned, so it begins then. */
export interface DistillationPhase extends StepSpan {
  /** `dense`, or a model folder. */
  readonly teacher: string;
  /** Share of the distillation loss in the whole, in [0, 1]. */
  readonly hardness: number;
  /** What logits are divided by; above 0. */
  readonly temperature: number;
}

/** What a run does at every step. Steps count completed updates, so 0 is before the first. */
export interface Timeline {
  readonly totalSteps: number;
  /** Learning rate, and momentum where a schedule cycles it, of the update after so many steps. */
  rateAt(step: number): Rates;
  /** Weight decay of the update after so many steps. */
  weightDecayAt(step: number): number;
  /** In the order of their begin. */
  readonly pruning: readonly PruningPhase[];
  /** In the order of their begin, none while another. */
  readonly distillation: readonly DistillationPhase[];
}

/**
 * Lays modifiers over a run.
 * @throws InputError, with the place of the modifier, for what lies outside of the run, two modifiers of one thing at the
 * same steps, a sparsity that falls, targets that match nothing, and distillation without a teacher.
 */
export function timelineOf(modifiers: readonly Modifier[], run: TimelineRun): Timeline {
  for (const modifier of ofKind(modifiers, "EpochRangeModifier")) {
    const { end_epoch } = modifier;
    if (end_epoch === epochsOf(run)) continue;
    refuse(modifier, `end_epoch is ${end_epoch}`, `${epochsOf(run)}, the epochs of the run`);
  }
  const pruning = pruningPhases(modifiers, run);
  return {
    totalSteps: stepsOf(run),
    rateAt: learningRatesOf(modifiers, run),
    weightDecayAt: weightDecayOf(ofKind(modifiers, "SetWeightDecayModifier"), run),
    pruning,
    distillation: distillationPhases(ofKind(modifiers, "DistillationModifier"), run, pruning),
  };
}

/** How long a run the modifiers ask for, in epochs; undefined where they do not say. Throws InputError if twice. */
export function epochsAskedFor(modifiers: readonly Modifier[]): number | undefined {
  return theOnly(ofKind(modifiers, "EpochRangeModifier"))?.end_epoch;
}

/** An optimiser and its constants, for `optimizerSettingsOf`. */
export interface OptimizerAsked {
  readonly name: ModifierOf<"OptimizerModifier">["optimizer"];
  readonly options: OptimizerOptions;
  /** Of MetaAdamW, and of no other. */
  readonly meta?: MetaOptions;
}

/**
 * The optimiser that the modifiers ask for; undefined where they do not say. Throws InputError if twice, and for constants and
 * options that it does not have, or that make no sense.
 */
export function optimizerAskedFor(modifiers: readonly Modifier[]): OptimizerAsked | undefined {
  const modifier = theOnly(ofKind(modifiers, "OptimizerModifier"));
  if (!modifier) return undefined;
  const { modifier: _, place: __, optimizer: name, meta_mode: mode, meta_options: changes, ...options } =
    modifier;
  atPlace(modifier, () => updateRule(optimizerSettingsOf(name, options)));
  if (name === "metaadamw") {
    const meta = atPlace(modifier, () => metaOptions(mode as MetaMode | undefined, changes));
    return { name, options, meta };
  }
  if (mode !== undefined || changes !== undefined) {
    refuse(modifier, `optimizer is ${name}`, "metaadamw, whose are meta_mode and meta_options");
  }
  return { name, options };
}

function ofKind<Name extends ModifierName>(modifiers: readonly Modifier[], name: Name): ModifierOf<Name>[] {
  return modifiers.filter((each): each is ModifierOf<Name> & Modifier => each.modifier === name);
}

function theOnly<Kind extends Modifier>(modifiers: readonly Kind[]): Kind | undefined {
  if (modifiers.length > 1) {
    refuse(modifiers[1], `${modifiers[0].place} is there before it`, `one ${modifiers[1].modifier}`);
  }
  return modifiers[0];
}

function weightDecayOf(
  modifiers: readonly ModifierOf<"SetWeightDecayModifier">[],
  run: TimelineRun,
): (step: number) => number {
  const settings = inOrder(modifiers, (modifier) => spanOf(modifier, run));
  for (const [index, { modifier, begin }] of settings.entries()) {
    if (index === 0 || settings[index - 1].begin < begin) continue;
    refuse(
      modifier,
      `it and ${settings[index - 1].modifier.place} set the weight decay at step ${begin}`,
      "one modifier at a time",
    );
  }
  return (step) => settings.findLast(({ begin }) => begin <= step)?.modifier.weight_decay ?? run.weightDecay;
}

function distillationPhases(
  modifiers: readonly ModifierOf<"DistillationModifier">[],
  run: TimelineRun,
  pruning: readonly PruningPhase[],
): DistillationPhase[] {
  if (run.teacher === "disable") return [];
  const phases = inOrder(modifiers, (modifier) => spanOf(modifier, run));
  return phases.map(({ modifier, begin, end }, index) => {
    const previous = phases[index - 1];
    if (previous && previous.end > begin) {
      refuse(
        modifier,
        `it distils from step ${begin}, and ${previous.modifier.place} until step ${previous.end}`,
        "one modifier at a time",
      );
    }
    const { hardness, temperature } = modifier;
    const teacher = run.teacher ?? modifier.teacher;
    if (teacher === undefined) {
      refuse(modifier, "it has no teacher", "teacher: dense, a model folder, or --teacher");
    }
    const firstStep = teacher === "dense" ? Math.max(begin, denseUntil(modifier, pruning)) : begin;
    if (firstStep >= end) {
      refuse(
        modifier,
        `it ends at step ${end} and its teacher is there from step ${firstStep}`,
        "a later end",
      );
    }
    return { teacher, hardness, temperature, begin: firstStep, end };
  });
}

/** The step of the first pruning, up to which there is no `dense` to learn from. */
function denseUntil(modifier: Modifier, pruning: readonly PruningPhase[]): number {
  const first = pruning.find(({ method }) => method.name !== "constant");
  return first?.schedule.begin ??
    refuse(modifier, "teacher is dense and nothing is pruned", "a model folder");
}

function inOrder<Kind extends Modifier>(
  modifiers: readonly Kind[],
  span: (modifier: Kind) => StepSpan,
): (StepSpan & { readonly modifier: Kind })[] {
  return modifiers.map((modifier) => ({ modifier, ...span(modifier) })).sort((a, b) => a.begin - b.begin);
}

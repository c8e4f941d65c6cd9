/**
 * What must not stand beside a recipe: flags that it leaves nothing to say, and which would be ignored.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { showValue } from "../core/json.ts";
import { type Subject, subjectOf } from "../recipes/flags.ts";
import type { Modifier } from "../recipes/modifiers.ts";

/** Flags and what they are about. Of pruning and distillation a recipe says all there is, even where it is nothing. */
const flagsOf: Readonly<Record<Subject, readonly string[]>> = {
  "length": ["--epochs"],
  "optimizer": [
    "--optimizer",
    "--adam-beta1",
    "--adam-beta2",
    "--adam-epsilon",
    "--amsgrad",
    "--momentum",
    "--dampening",
    "--nesterov",
    "--alpha",
    "--centered",
    "--meta-mode",
    "--meta-options",
  ],
  "learning rate": [
    "--learning-rate",
    "--lr-scheduler-type",
    "--lr-scheduler-kwargs",
    "--warmup-ratio",
    "--warmup-steps",
  ],
  "weight decay": ["--weight-decay"],
  "pruning": [
    "--sparsity",
    "--pattern",
    "--pruning-method",
    "--pruning-options",
    "--pruning-scope",
    "--pruning-schedule",
    "--prune-targets",
    "--prune-begin",
    "--prune-end",
    "--prune-refreshes",
  ],
  "distillation": ["--teacher", "--hardness", "--temperature"],
};

/** Flags that hold until a modifier of their subject begins. */
const untilBegin: readonly string[] = ["--learning-rate", "--weight-decay"];

/** Refuses flags, with their values, that a recipe overrules. Throws `InputError` at the first. */
export function checkBesideRecipe(
  recipe: string,
  modifiers: readonly Modifier[],
  given: Iterable<readonly [flag: string, value: unknown]>,
): void {
  for (const [flag, value] of given) {
    const subject = (Object.keys(flagsOf) as Subject[]).find((each) => flagsOf[each].includes(flag));
    if (subject === undefined || !isOverruled(flag, value, subject, modifiers)) continue;
    const shown = typeof value === "string" ? value : showValue(value);
    throw new InputError(
      `${flag} is ${shown}, and ${recipe} says all about the ${subject}: wanted it in the recipe or in --recipe-args`,
    );
  }
}

function isOverruled(
  flag: string,
  value: unknown,
  subject: Subject,
  modifiers: readonly Modifier[],
): boolean {
  const said = modifiers.filter((modifier) => subjectOf(modifier) === subject);
  // The teacher of a recipe's distillation may be given outside of it.
  if (flag === "--teacher") return value !== "disable" && said.length === 0;
  if (subject === "pruning" || subject === "distillation") return true;
  return untilBegin.includes(flag) ? said.some(beginsAtOnce) : said.length > 0;
}

function beginsAtOnce(modifier: Modifier): boolean {
  const { start_epoch = 0, start_fraction = 0, start_step = 0 } = modifier as Readonly<
    Record<string, unknown>
  >;
  return [start_epoch, start_fraction, start_step].every((place) => place === 0 || place === -1);
}

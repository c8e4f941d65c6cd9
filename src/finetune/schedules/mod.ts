/**
 * Learning-rate schedules by name: the factor on the peak rate, as a function of the steps completed.
 *
 * The names and numbers are those of Hugging Face's `get_scheduler` where it has the schedule, so that a recipe means the
 * same here and there.
 *
 *     const schedule = learningRateSchedule("cosine", { totalSteps: 1000, warmupRatio: 0.06 });
 *     const learningRate = peak * schedule.factor(completedSteps);
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { showValue } from "../../core/json.ts";
import { constant, constantWithWarmup } from "./constant.ts";
import { cosine } from "./cosine.ts";
import { cosineWithRestarts } from "./cosine_with_restarts.ts";
import { cyclicLinear } from "./cyclic_linear.ts";
import { linear } from "./linear.ts";
import { oneCycle } from "./one_cycle.ts";
import { polynomial } from "./polynomial.ts";
import {
  checkOption,
  type LearningRateSchedule,
  type LearningRateScheduleName,
  type ScheduleKind,
  type ScheduleLength,
  type ScheduleOptions,
  warmupStepsOf,
} from "./schedule.ts";

export { fastaiOneCycle } from "./one_cycle.ts";
export type { LearningRateSchedule, LearningRateScheduleName, ScheduleOptions } from "./schedule.ts";

const kinds: ReadonlyMap<string, ScheduleKind> = new Map(
  [constant, constantWithWarmup, linear, cosine, cosineWithRestarts, polynomial, cyclicLinear, oneCycle]
    .map((kind) => [kind.name, kind]),
);

/** Other names that Hugging Face and PyTorch have for a schedule. */
const aliases: ReadonlyMap<string, LearningRateScheduleName> = new Map([
  ["cosine_with_min_lr", "cosine"],
  ["OneCycleLR", "one_cycle"],
]);

/** All names `learningRateSchedule` knows, aliases left out. */
export const learningRateScheduleNames: readonly LearningRateScheduleName[] = Object.freeze(
  Array.from(kinds.values(), ({ name }) => name),
);

/**
 * Makes a schedule by name or alias. Throws InputError for an unknown name, a warm-up longer than the schedule, a value
 * out of range, or an option that this schedule does not take.
 */
export function learningRateSchedule(name: string, options: ScheduleOptions): LearningRateSchedule {
  const kind = kindOf(name);
  checkTaken(name, kind, options);
  const length = lengthOf(kind, options);
  if (name === "cosine_with_min_lr") {
    checkOption(options.endRatio !== undefined, name, "endRatio", "missing", "the least factor");
  }
  return { name: kind.name, ...kind.make(length, options) };
}

/** Options may come from a file, so that neither their names nor their types are sure. */
function checkTaken(name: string, { takes }: ScheduleKind, options: ScheduleOptions): void {
  const wanted = takes.length === 0 ? "none" : `none: it takes ${takes.join(", ")}`;
  for (const [option, value] of Object.entries(options) as [keyof ScheduleOptions, unknown][]) {
    if (value === undefined) continue;
    checkOption(takes.includes(option) || lengthOptions.has(option), name, option, showValue(value), wanted);
    const wantedType = optionTypes[option] ?? "number";
    const type: string = typeof value;
    checkOption(type === wantedType, name, option, showValue(value), `a ${wantedType}`);
  }
}

const lengthOptions: ReadonlySet<keyof ScheduleOptions> = new Set([
  "totalSteps",
  "warmupSteps",
  "warmupRatio",
]);

/** The options that are no numbers. */
const optionTypes: Partial<Record<keyof ScheduleOptions, "string" | "boolean">> = {
  annealStrategy: "string",
  threePhase: "boolean",
  cycleMomentum: "boolean",
};

/** Whether a schedule can start with a warm-up: `constant` has none, and `one_cycle` has its own. */
export function takesWarmup(name: string): boolean {
  return kindOf(name).takesWarmup;
}

function kindOf(name: string): ScheduleKind {
  const kind = kinds.get(aliases.get(name) ?? name);
  if (kind) return kind;
  throw new InputError(
    `Unknown learning-rate schedule ${name}: wanted one of ${learningRateScheduleNames.join(", ")}`,
  );
}

function lengthOf({ name, takesWarmup }: ScheduleKind, options: ScheduleOptions): ScheduleLength {
  const { totalSteps, warmupRatio } = options;
  const isCount = (value: number, least: number) => Number.isSafeInteger(value) && value >= least;
  checkOption(isCount(totalSteps, 1), name, "totalSteps", totalSteps, "a whole number of at least 1");
  if (warmupRatio !== undefined && options.warmupSteps !== undefined) {
    throw new InputError(
      `Cannot make the learning-rate schedule ${name}: warmupSteps ${options.warmupSteps} and ` +
        `warmupRatio ${warmupRatio} exclude each other, wanted one of them`,
    );
  }
  const warmupSteps = options.warmupSteps ??
    (warmupRatio === undefined ? 0 : warmupStepsOf(warmupRatio, totalSteps));
  checkOption(isCount(warmupSteps, 0), name, "warmupSteps", warmupSteps, "a whole number of at least 0");
  checkOption(
    warmupSteps <= totalSteps,
    name,
    "warmupSteps",
    warmupSteps,
    `no more than the ${totalSteps} steps there are`,
  );
  if (warmupSteps > 0 && !takesWarmup) {
    throw new InputError(
      `The learning-rate schedule ${name} takes no warm-up and ${warmupSteps} steps were asked for: wanted ` +
        (name === "constant" ? "constant_with_warmup, or none" : "none, as it has its own, pctStart"),
    );
  }
  return { warmupSteps, totalSteps };
}

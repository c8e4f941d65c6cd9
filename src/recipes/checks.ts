/**
 * Checks of a modifier by itself: fields that exclude or need each other. What depends on the run is `positions.ts`'s
 * and the timeline's to check.
 * @module
 */
import { InputError } from "../core/errors.ts";
import {
  blockShape,
  groupTolerance,
  highestSparsity,
  parsePattern,
  weightGroup,
} from "../pruning/pattern.ts";
import type { GradualPruningModifier, Modifier, ModifierOf } from "./modifiers.ts";
import { fromParam } from "./values.ts";

/** Throws InputError at the first contradiction. */
export function checkModifier(modifier: Modifier): void {
  atMostOne(modifier, ["start_epoch", "start_fraction", "start_step"]);
  atMostOne(modifier, ["end_epoch", "end_fraction", "end_step"]);
  if (modifier.modifier !== "EpochRangeModifier") checkOrder(modifier);
  switch (modifier.modifier) {
    case "LearningRateFunctionModifier":
      return checkCycles(modifier);
    case "LearningRateScheduleModifier":
      atMostOne(modifier, ["warmup_steps", "warmup_ratio"]);
      return atMostOne(modifier, ["cycle_epochs", "cycle_steps"]);
    case "OBSPruningModifier":
      checkFisherBlocks(modifier);
      return checkPruning(modifier);
    case "MovementPruningModifier":
      for (const name of ["penalty", "threshold"] as const) {
        if (modifier[name] === undefined || modifier.soft) continue;
        refuse(modifier, `${name} is ${modifier[name]} and soft is false`, "soft: true");
      }
      if (modifier.soft && weightGroup(parsePattern(modifier.mask_type))) {
        refuse(modifier, `mask_type is ${modifier.mask_type} and soft is true`, "single weights or blocks");
      }
      return checkPruning(modifier);
    case "GMPruningModifier":
    case "MagnitudePruningModifier":
    case "GlobalMagnitudePruningModifier":
      return checkPruning(modifier);
  }
}

/** Ends the reading of a modifier with one line. */
export function refuse(modifier: Modifier, found: string, wanted: string): never {
  throw new InputError(`${modifier.place}: ${found}: wanted ${wanted}`);
}

/** Says of an error's one line which modifier it is about. */
export function atPlace<T>(modifier: Modifier, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (error instanceof InputError) throw new InputError(`${modifier.place}: ${error.message}`);
    throw error;
  }
}

type Fields = Readonly<Record<string, unknown>>;

function atMostOne(modifier: Modifier, names: readonly string[]): void {
  const given = names.filter((name) => Object.hasOwn(modifier, name));
  if (given.length > 1) {
    refuse(modifier, `${given.join(" and ")} exclude each other`, `one of ${names.join(", ")}`);
  }
}

/** Begin before end, where both are in one unit; the others are compared when the run's length is known. */
function checkOrder(modifier: Modifier): void {
  const fields = modifier as Fields;
  for (const unit of ["epoch", "fraction", "step"]) {
    const begin = fields[`start_${unit}`] as number | undefined;
    const end = fields[`end_${unit}`] as number | undefined;
    if (begin === undefined || end === undefined || end === -1 || begin <= end) continue;
    refuse(modifier, `end_${unit} is ${end}`, `at least start_${unit}, ${begin}`);
  }
}

function checkCycles(modifier: ModifierOf<"LearningRateFunctionModifier">): void {
  const { lr_func, cycle_epochs } = modifier;
  if (lr_func === "cyclic_linear" && cycle_epochs === undefined) {
    refuse(modifier, "cyclic_linear has no cycle_epochs", "the length of a cycle in epochs");
  }
  if (lr_func !== "cyclic_linear" && cycle_epochs !== undefined) {
    refuse(modifier, `cycle_epochs is ${cycle_epochs} and lr_func is ${lr_func}`, "lr_func: cyclic_linear");
  }
}

function checkFisherBlocks(modifier: ModifierOf<"OBSPruningModifier">): void {
  const { fisher_block_size, mask_type } = modifier;
  const { rows, columns } = blockShape(parsePattern(mask_type));
  if (fisher_block_size >= rows * columns) return;
  refuse(
    modifier,
    `fisher_block_size is ${fisher_block_size}`,
    `at least ${rows * columns} for mask_type ${mask_type}`,
  );
}

function checkPruning(modifier: GradualPruningModifier): void {
  const { final_sparsity, init_sparsity, params, leave_enabled } = modifier;
  atMostOne(modifier, ["update_frequency", "update_steps", "updates"]);
  if (modifier.exponent !== undefined && modifier.inter_func !== "polynomial") {
    refuse(
      modifier,
      `exponent is ${modifier.exponent} and inter_func is ${modifier.inter_func}`,
      "inter_func: polynomial",
    );
  }
  if (!leave_enabled) refuse(modifier, "leave_enabled is false", "true: what is pruned stays pruned here");
  if (typeof final_sparsity !== "number" && params.length > 0) {
    refuse(modifier, `params is ${JSON.stringify(params)}`, "[], since final_sparsity names the parameters");
  }
  const levels = typeof final_sparsity === "number" ? [final_sparsity] : [...final_sparsity.keys()];
  for (const level of levels) {
    if (init_sparsity !== fromParam && init_sparsity > level) {
      refuse(modifier, `init_sparsity is ${init_sparsity}`, `at most final_sparsity, ${level}`);
    }
    checkOfMany(modifier, level);
  }
}

/** N of M consecutive weights are kept, so no sparsity but 1 − N/M can be reached. */
function checkOfMany(modifier: GradualPruningModifier, level: number): void {
  const pattern = parsePattern(modifier.mask_type);
  const wanted = highestSparsity(pattern);
  if (!weightGroup(pattern) || Math.abs(level - wanted) <= groupTolerance) return;
  refuse(modifier, `final_sparsity is ${level}`, `${Number(wanted.toFixed(4))} for mask_type ${pattern}`);
}

/**
 * The optimisers by name.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { adamRule } from "./adam.ts";
import { rmspropRule } from "./rmsprop.ts";
import type { AdamSettings, OptimizerSettings, RmspropSettings, SgdSettings, UpdateRule } from "./rule.ts";
import { sgdRule } from "./sgd.ts";

/** An optimiser. */
export type OptimizerName = "adamw" | "adam" | "sgd" | "rmsprop";

/** All there are. */
export const optimizerNames: readonly OptimizerName[] = ["adamw", "adam", "sgd", "rmsprop"];

/** The constants that PyTorch 2.13 takes where none are given. Throws an InputError for an unknown name. */
export function optimizerDefaults(name: OptimizerName): OptimizerSettings {
  switch (name) {
    case "adamw":
    case "adam":
      return { name, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, amsgrad: false };
    case "sgd":
      return { name, momentum: 0, dampening: 0, nesterov: false };
    case "rmsprop":
      return { name, alpha: 0.99, epsilon: 1e-8, momentum: 0, centered: false };
    default:
      return refuseName(name);
  }
}

/** The rule of an optimiser. Throws an InputError for constants it cannot work with. */
export function updateRule(settings: OptimizerSettings): UpdateRule {
  switch (settings.name) {
    case "adamw":
    case "adam":
      checkAdam(settings);
      return adamRule(settings);
    case "sgd":
      checkSgd(settings);
      return sgdRule(settings);
    case "rmsprop":
      checkRmsprop(settings);
      return rmspropRule(settings);
    default:
      return refuseName((settings as { name: unknown }).name);
  }
}

function refuseName(name: unknown): never {
  throw new InputError(`optimizer is ${name}: wanted one of ${optimizerNames.join(", ")}`);
}

function check(condition: boolean, name: string, found: unknown, wanted: string): void {
  if (!condition) throw new InputError(`${name} is ${found}: wanted ${wanted}`);
}

/** A share that is kept from step to step: with 1 nothing would ever be forgotten. */
function checkShare(name: string, value: number): void {
  check(value >= 0 && value < 1, name, value, "a number in [0, 1)");
}

function checkEpsilon(epsilon: number): void {
  // Parameters that have had no gradient yet divide 0 by it, in f32.
  check(Math.fround(epsilon) > 0 && Number.isFinite(epsilon), "epsilon", epsilon, "a number above 0");
}

function checkAdam({ beta1, beta2, epsilon }: AdamSettings): void {
  checkShare("beta1", beta1);
  checkShare("beta2", beta2);
  checkEpsilon(epsilon);
}

function checkSgd({ momentum, dampening, nesterov }: SgdSettings): void {
  checkShare("momentum", momentum);
  check(dampening >= 0 && dampening <= 1, "dampening", dampening, "a number in [0, 1]");
  if (!nesterov) return;
  check(momentum > 0, "momentum", momentum, "a number above 0 with nesterov");
  check(dampening === 0, "dampening", dampening, "0 with nesterov");
}

function checkRmsprop({ alpha, epsilon, momentum }: RmspropSettings): void {
  checkShare("alpha", alpha);
  checkEpsilon(epsilon);
  checkShare("momentum", momentum);
}

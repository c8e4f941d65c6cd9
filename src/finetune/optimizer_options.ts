/**
 * From the words of flags and recipes to an optimiser's settings.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { optimizerDefaults, type OptimizerName, optimizerNames } from "../kernels/optimizer/optimizers.ts";
import type { OptimizerSettings } from "../kernels/optimizer/rule.ts";

/** Constants of optimisers; each takes some of them. */
export interface OptimizerOptions {
  /** Adam's and AdamW's β₁. */
  readonly beta1?: number;
  /** Adam's and AdamW's β₂. */
  readonly beta2?: number;
  /** Added to the divisor. */
  readonly epsilon?: number;
  /** Adam and AdamW: divide by the largest second moment so far. */
  readonly amsgrad?: boolean;
  /** Share of the buffer of SGD or RMSprop that is kept. */
  readonly momentum?: number;
  /** Share of the gradient that is kept out of SGD's buffer. */
  readonly dampening?: number;
  /** SGD: move by the buffer of the next step. */
  readonly nesterov?: boolean;
  /** Share of RMSprop's averages that is kept. */
  readonly alpha?: number;
  /** RMSprop: divide by the deviation instead of the root of the mean square. */
  readonly centered?: boolean;
}

/** All names of optimisers a run can have. */
export const trainableWith: readonly (OptimizerName | "metaadamw")[] = [...optimizerNames, "metaadamw"];

/**
 * PyTorch's defaults with what is given in their place. MetaAdamW is AdamW with factors. Throws `InputError` for a name
 * there is none of, and for a constant that the optimiser does not have.
 */
export function optimizerSettingsOf(
  name: OptimizerName | "metaadamw",
  options: OptimizerOptions = {},
): OptimizerSettings {
  if (!trainableWith.includes(name)) {
    throw new InputError(`--optimizer is ${name}: wanted one of ${trainableWith.join(", ")}`);
  }
  const defaults = optimizerDefaults(name === "metaadamw" ? "adamw" : name);
  const settings: Record<string, unknown> = { ...defaults };
  for (const [option, value] of Object.entries(options) as [keyof OptimizerOptions, unknown][]) {
    if (value === undefined) continue;
    const taken = Object.keys(defaults).filter((key) => key !== "name");
    if (!taken.includes(option)) {
      throw new InputError(`${option} is ${value}: ${name} has none, it takes ${taken.join(", ")}`);
    }
    const isSwitch = typeof settings[option] === "boolean";
    if (isSwitch ? typeof value !== "boolean" : typeof value !== "number") {
      throw new InputError(`${option} is ${value}: wanted ${isSwitch ? "true or false" : "a number"}`);
    }
    settings[option] = value;
  }
  return settings as unknown as OptimizerSettings;
}

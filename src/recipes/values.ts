/**
 * Values of a recipe, and the kinds of value its fields want.
 * @module
 */
import { showValue } from "../core/json.ts";
import { nameMatcher } from "../core/name_pattern.ts";
import { parsePattern, patternForms } from "../pruning/pattern.ts";
import { allPrunable } from "../pruning/targets.ts";

/** What a field or a variable can hold. The keys of a map are kept as text: `0.8` in `final_sparsity: {0.8: […]}`. */
export type RecipeValue = null | boolean | number | string | readonly RecipeValue[] | RecipeMap;

/** A map inside a recipe. */
export type RecipeMap = ReadonlyMap<string, RecipeValue>;

/** A kind of value. */
export interface Kind<T> {
  /** What was wanted, for the message of an error. */
  readonly wanted: string;
  /** The value as the kind has it; undefined when it does not fit. */
  read(value: RecipeValue): T | undefined;
}

/** A recipe value on one line and short enough for a message. */
export function showRecipeValue(value: RecipeValue): string {
  return showValue(plain(value));
}

function plain(value: RecipeValue): unknown {
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, each]) => [key, plain(each)]));
  return Array.isArray(value) ? value.map(plain) : value;
}

/** JSON, or a plain object, as a recipe has it; what is undefined has no value in a recipe, so it is null. */
export function recipeValueOf(json: unknown): RecipeValue {
  if (Array.isArray(json)) return json.map(recipeValueOf);
  if (typeof json !== "object" || json === null) return (json ?? null) as RecipeValue;
  return new Map(Object.entries(json).map(([key, each]) => [key, recipeValueOf(each)]));
}

function kind<T>(wanted: string, read: (value: RecipeValue) => T | undefined): Kind<T> {
  return { wanted, read };
}

function number(wanted: string, fits: (value: number) => boolean): Kind<number> {
  return kind(wanted, (value) => typeof value === "number" && fits(value) ? value : undefined);
}

/** A number in [low, high]. */
export function within(low: number, high: number): Kind<number> {
  return number(`a number in [${low}, ${high}]`, (value) => value >= low && value <= high);
}

/** A number in [low, high). */
export function below(low: number, high: number): Kind<number> {
  return number(`a number in [${low}, ${high})`, (value) => value >= low && value < high);
}

/** A finite number above 0. */
export const positive: Kind<number> = number(
  "a positive number",
  (value) => value > 0 && Number.isFinite(value),
);

/** A finite number of at least 0. */
export const nonNegative: Kind<number> = number(
  "a number of at least 0",
  (value) => value >= 0 && Number.isFinite(value),
);

/** A whole number. */
export function whole(least: number): Kind<number> {
  return number(
    `a whole number of at least ${least}`,
    (value) => Number.isSafeInteger(value) && value >= least,
  );
}

/** A place in the run: epochs from its begin, fractions allowed, or −1 for the begin or the end of the run. */
export const epoch: Kind<number> = number(
  "a number of epochs, or -1 for the begin or the end of the run",
  (value) => value === -1 || (value >= 0 && Number.isFinite(value)),
);

/** Epochs between two updates, fractions allowed, or −1 for an update at every step. */
export const frequency: Kind<number> = number(
  "a positive number of epochs, or -1 for every step",
  (value) => value === -1 || (value > 0 && Number.isFinite(value)),
);

/** Yes or no. */
export const boolean: Kind<boolean> = kind(
  "true or false",
  (value) => typeof value === "boolean" ? value : undefined,
);

/** Some text. */
export const text: Kind<string> = kind(
  "a text",
  (value) => typeof value === "string" && value !== "" ? value : undefined,
);

/** One of some words. */
export function oneOf<const Word extends string>(...words: readonly Word[]): Kind<Word> {
  return kind(`one of ${words.join(", ")}`, (value) => words.find((word) => word === value));
}

/** Says that pruning begins at the sparsity a parameter has. */
export const fromParam = "__FROM_PARAM__";

/** A share of zeros that pruning can start from; `__FROM_PARAM__`: the one there is. */
export const initSparsity: Kind<number | typeof fromParam> = kind(
  `a number in [0, 1), or ${fromParam}`,
  (value) => value === fromParam ? fromParam : below(0, 1).read(value),
);

/** Names of parameters, `re:` and a regular expression, or `__ALL_PRUNABLE__`; one or a list. */
export const params: Kind<readonly string[]> = kind(
  `a name, re: and a regular expression, or ${allPrunable}; or a list of these`,
  (value) => {
    const list = typeof value === "string" ? [value] : value;
    return Array.isArray(list) && list.every(isParam) ? list : undefined;
  },
);

function isParam(value: RecipeValue): boolean {
  if (typeof value !== "string" || value === "") return false;
  try {
    nameMatcher(value, "params");
    return value !== "re:";
  } catch {
    return false;
  }
}

/** The share of zeros in the end: one for all of `params`, or a map from shares to params. */
export const finalSparsity: Kind<number | ReadonlyMap<number, readonly string[]>> = kind(
  "a number in [0, 1), or a map from such numbers to params",
  (value) => {
    if (!(value instanceof Map)) return below(0, 1).read(value);
    const entries: [number, readonly string[]][] = [];
    for (const [key, names] of value as RecipeMap) {
      const sparsity = below(0, 1).read(key.trim() === "" ? NaN : Number(key));
      const list = params.read(names);
      if (sparsity === undefined || !list?.length) return undefined;
      entries.push([sparsity, list]);
    }
    return entries.length > 0 ? new Map(entries) : undefined;
  },
);

/** A name that `parsePattern` knows; `[r, c]`, r outputs × c inputs, may be a list. */
export const maskType: Kind<string> = kind(
  patternForms,
  (value) => {
    const name = Array.isArray(value) ? `[${value.join(",")}]` : value;
    if (typeof name !== "string") return undefined;
    try {
      parsePattern(name);
      return name;
    } catch {
      return undefined;
    }
  },
);

/** Options by name, which somebody else knows. */
export const options: Kind<Readonly<Record<string, unknown>>> = kind(
  "a map of options",
  (value) => value instanceof Map ? plain(value) as Record<string, unknown> : undefined,
);

/** How the gradients of a second-order method are taken: sequences in a batch. */
export const gradientSampler: Kind<{ readonly batch_size: number }> = kind(
  "a map with batch_size, a whole number of at least 1",
  (value) => {
    if (!(value instanceof Map) || value.size !== 1) return undefined;
    const size = whole(1).read(value.get("batch_size") ?? null);
    return size === undefined ? undefined : { batch_size: size };
  },
);

/**
 * Grids: which variants of a run are compared, over which seeds, and with what as the baseline.
 *
 *     const grid = makeGrid(description, { source: "grid.yaml", knownFlags });
 *     for (const variant of grid.variants) flagsOf(grid, variant); // all flags of its runs
 * @module
 */
import { InputError } from "../core/errors.ts";
import { showValue } from "../core/json.ts";
import { checkFlags, type Flags, type KnownFlags, mergeFlags } from "./flags.ts";

/** A grid as it is written down. */
export interface GridDescription {
  /** Names the folder of the results. */
  readonly name: string;
  /** What the comparison is to tell. */
  readonly description?: string;
  /** Flags of all variants. */
  readonly base: Flags;
  /** How many seeds, from 1 on, or which. */
  readonly seeds: number | readonly number[];
  /** Name of the variant that all others are held against. */
  readonly baseline: string;
  /** Flags that differ from `base`, by the variant's name. */
  readonly variants: NamedFlags;
  /** More variants: one of each, in all combinations, under their names together. */
  readonly combinations?: readonly NamedFlags[];
  /** Variants made of another one. */
  readonly controls?: Controls;
}

/** Flags by a name. */
export type NamedFlags = Readonly<Record<string, Flags>>;

/** What a gain may really come from: copies of a variant with other learning rates. */
export interface Controls {
  /** Name of the variant that is copied. */
  readonly of: string;
  /** Factors on its learning rate. */
  readonly factors: readonly number[];
}

/** One side of a comparison. */
export interface Variant {
  readonly name: string;
  /** Flags that differ from the grid's. */
  readonly flags: Flags;
  /** Name of the variant that this one is a copy of, but for its learning rate. */
  readonly controlOf?: string;
}

/** What is to be compared. */
export interface Grid extends Pick<GridDescription, "name" | "description" | "base" | "baseline"> {
  readonly seeds: readonly number[];
  /** Controls come right after the variant they are made of. */
  readonly variants: readonly Variant[];
}

/** Where a grid is from, and which flags it may use. */
export interface GridOptions {
  /** A path or words, for messages. */
  readonly source: string;
  readonly knownFlags: KnownFlags;
}

/** All flags of a variant's runs. */
export function flagsOf({ base }: Pick<Grid, "base">, { flags }: Variant): Flags {
  return mergeFlags(base, flags);
}

/** Checks a description and makes its controls. Throws InputError for what is unknown, missing or there twice. */
export function makeGrid(description: GridDescription, { source, knownFlags }: GridOptions): Grid {
  const { name, base, baseline, controls } = description;
  if (!/^[A-Za-z0-9][\w.-]*$/.test(name)) {
    throw new InputError(`${source}: name is ${showValue(name)}: wanted letters, digits, -, _ and .`);
  }
  const described = [...Object.entries(description.variants), ...combine(description.combinations ?? [])];
  const names = described.map(([name]) => name);
  const check = (role: string, variant: string) => {
    if (names.includes(variant)) return;
    throw new InputError(`${source}: ${role} is ${showValue(variant)}: wanted one of ${names.join(", ")}`);
  };
  if (names.length === 0) throw new InputError(`${source}: there are no variants: wanted at least one`);
  check("baseline", baseline);
  if (controls) check("controls of", controls.of);
  checkFlags(base, knownFlags, `${source}: base`);
  const variants = described.flatMap(([name, flags]) => {
    checkFlags(flags, knownFlags, `${source}: variant ${name}`);
    const variant = { name, flags };
    return name === controls?.of ? [variant, ...controlsOf(variant, controls, base, source)] : [variant];
  });
  const twice = variants.find(({ name }, index) =>
    variants.findIndex((other) => other.name === name) < index
  );
  if (twice) {
    throw new InputError(`${source}: there are two variants ${twice.name}: wanted names that differ`);
  }
  return {
    name,
    description: description.description,
    base,
    baseline,
    seeds: seedsOf(description, source),
    variants,
  };
}

/** `magnitude, 80 %`, `magnitude, 90 %`, `movement, 80 %`, … */
function combine(sets: readonly NamedFlags[]): [name: string, flags: Flags][] {
  if (sets.length === 0) return [];
  return sets.map((set) => Object.entries(set)).reduce((all, set) =>
    all.flatMap(([name, flags]) =>
      set.map(([other, more]): [string, Flags] => [`${name}, ${other}`, { ...flags, ...more }])
    )
  );
}

/** `AdamW, rate × 0.5`, … */
function controlsOf(variant: Variant, { factors }: Controls, base: Flags, source: string): Variant[] {
  const rate = mergeFlags(base, variant.flags)["learning-rate"];
  if (typeof rate !== "number") {
    throw new InputError(
      `${source}: controls of ${variant.name}, whose learning-rate is ${
        showValue(rate ?? "not set")
      }: wanted a number`,
    );
  }
  return factors.map((factor) => {
    if (!(factor > 0 && factor < Infinity && factor !== 1)) {
      throw new InputError(
        `${source}: a factor of the controls is ${showValue(factor)}: wanted a positive number other than 1`,
      );
    }
    // Twelve digits, so that 0.75 · 2e-5 is 1.5e-5.
    const scaled = Number((factor * rate).toPrecision(12));
    return {
      name: `${variant.name}, rate × ${factor}`,
      flags: { ...variant.flags, "learning-rate": scaled },
      controlOf: variant.name,
    };
  });
}

function seedsOf({ seeds }: GridDescription, source: string): readonly number[] {
  const isCount = (value: unknown, least: number) =>
    Number.isSafeInteger(value) && (value as number) >= least;
  if (typeof seeds === "number") {
    if (isCount(seeds, 1)) return Array.from({ length: seeds }, (_, index) => index + 1);
  } else if (
    seeds.length > 0 && seeds.every((seed) => isCount(seed, 0)) && new Set(seeds).size === seeds.length
  ) {
    return seeds;
  }
  throw new InputError(
    `${source}: seeds is ${showValue(seeds)}: wanted how many, or a list of whole numbers that differ`,
  );
}

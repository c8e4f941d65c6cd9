/**
 * Flags as data: what a grid file gives a run, and the arguments it comes to.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { showValue } from "../core/json.ts";

/** A flag's value as YAML has it. A list is written with commas, a map as JSON; `null` takes back what `base` has. */
export type FlagValue = string | number | boolean | null | readonly unknown[] | {
  readonly [key: string]: unknown;
};

/** Flags by their dashed names. */
export type Flags = Readonly<Record<string, FlagValue>>;

/** The flags a grid may use, and whether they take a value. */
export type KnownFlags = ReadonlyMap<string, { readonly takesValue: boolean }>;

/** Throws InputError for a flag that is not known, and for a value where none is taken or the other way round. */
export function checkFlags(flags: Flags, known: KnownFlags, place: string): void {
  for (const [name, value] of Object.entries(flags)) {
    const flag = known.get(name);
    if (!flag) {
      throw new InputError(
        `${place}: there is no flag ${name}: wanted one of ${[...known.keys()].join(", ")}`,
      );
    }
    if (value !== null && (typeof value === "boolean") === flag.takesValue) {
      const wanted = flag.takesValue ? "a value" : "true or false";
      throw new InputError(`${place}: ${name} is ${showValue(value)}: wanted ${wanted}`);
    }
  }
}

/** Flags with others laid over them, less those that are null or false. */
export function mergeFlags(base: Flags, over: Flags): Flags {
  return Object.fromEntries(
    Object.entries({ ...base, ...over }).filter(([, value]) => value !== null && value !== false),
  );
}

/** The arguments of a command: `--learning-rate=2e-5`, `--amsgrad`. */
export function flagArguments(flags: Flags): string[] {
  return Object.entries(flags).flatMap(([name, value]) => {
    if (value === null || value === false) return [];
    return value === true ? [`--${name}`] : [`--${name}=${flagText(value)}`];
  });
}

function flagText(value: FlagValue): string {
  if (Array.isArray(value)) return value.join(",");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

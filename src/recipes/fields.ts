/**
 * Fields of modifiers: each has a kind and is required, optional, or has a default. The types of modifiers follow.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { type Kind, type RecipeMap, type RecipeValue, showRecipeValue } from "./values.ts";

/** A field that must be there. */
export interface RequiredField<T> {
  readonly presence: "required";
  readonly kind: Kind<T>;
}

/** A field that may be left out. */
export interface OptionalField<T> {
  readonly presence: "optional";
  readonly kind: Kind<T>;
}

/** A field with a value for when it is left out. */
export interface DefaultedField<T> {
  readonly presence: "default";
  readonly kind: Kind<T>;
  readonly value: T;
}

/** Fields by name. */
export type FieldTable = Readonly<
  Record<string, RequiredField<unknown> | OptionalField<unknown> | DefaultedField<unknown>>
>;

/** Values by name, as a table of fields wants them. */
export type ValuesOf<Table> =
  & {
    readonly [Name in keyof Table as Table[Name] extends OptionalField<unknown> ? never : Name]:
      Table[Name] extends RequiredField<infer T> | DefaultedField<infer T> ? T : never;
  }
  & {
    readonly [Name in keyof Table as Table[Name] extends OptionalField<unknown> ? Name : never]?:
      Table[Name] extends OptionalField<infer T> ? T : never;
  };

/** A field that must be there. */
export function required<T>(kind: Kind<T>): RequiredField<T> {
  return { presence: "required", kind };
}

/** A field that may be left out. */
export function optional<T>(kind: Kind<T>): OptionalField<T> {
  return { presence: "optional", kind };
}

/** A field with a value for when it is left out. */
export function withDefault<T>(kind: Kind<T>, value: T): DefaultedField<T> {
  return { presence: "default", kind, value };
}

/** Where fields come from, for messages: `recipe.yaml, line 12: GMPruningModifier`. */
export type PlaceOf = (field?: string) => string;

/**
 * Checks values against a table, and fills in defaults.
 * @throws InputError for a field that is unknown, missing, or not of its kind.
 */
export function readFields(table: FieldTable, values: RecipeMap, placeOf: PlaceOf): Record<string, unknown> {
  for (const name of values.keys()) {
    if (Object.hasOwn(table, name)) continue;
    const known = Object.keys(table).join(", ");
    throw new InputError(`${placeOf(name)} has a field ${name}: wanted one of ${known}`);
  }
  const fields: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(table)) {
    const value: RecipeValue | undefined = values.get(name);
    if (value === undefined) {
      if (field.presence === "default") fields[name] = field.value;
      else if (field.presence === "required") {
        throw new InputError(`${placeOf()} has no ${name}: wanted ${field.kind.wanted}`);
      }
      continue;
    }
    fields[name] = field.kind.read(value);
    if (fields[name] === undefined) {
      throw new InputError(
        `${placeOf(name)}: ${name} is ${showRecipeValue(value)}: wanted ${field.kind.wanted}`,
      );
    }
  }
  return fields;
}

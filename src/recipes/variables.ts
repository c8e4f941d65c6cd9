/**
 * Variables of a recipe, and the `eval(…)` that refer to them.
 *
 * A variable may refer to others in any order. `eval(name)` alone gives the variable as it is, a list or a text too; any
 * other expression is arithmetic and its variables are numbers.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { evaluate } from "./arithmetic.ts";
import { type RecipeMap, type RecipeValue, showRecipeValue } from "./values.ts";

/** A variable as it was written. */
export interface RawVariable {
  readonly value: RecipeValue;
  /** Where it stands, for messages. */
  readonly place: string;
}

/** Variables by name, computed when they are asked for. */
export class Variables {
  readonly #raw: ReadonlyMap<string, RawVariable>;
  readonly #values = new Map<string, RecipeValue>();
  /** Names whose values are being computed, to find cycles. */
  readonly #open: string[] = [];

  constructor(raw: ReadonlyMap<string, RawVariable>) {
    this.#raw = raw;
  }

  /** All variables with their values. Throws InputError for the first that has none. */
  all(): RecipeMap {
    return new Map(this.#raw.keys().map((name) => [name, this.#value(name, "")]));
  }

  /** A value with every `eval(…)` in it replaced by what it gives. Throws InputError where that is nothing. */
  resolve(value: RecipeValue, place: string): RecipeValue {
    if (typeof value === "string") {
      const [, expression] = /^\s*eval\((.*)\)\s*$/s.exec(value) ?? [];
      return expression === undefined ? value : this.#evaluate(expression, place);
    }
    if (Array.isArray(value)) return value.map((each) => this.resolve(each, place));
    if (!(value instanceof Map)) return value;
    return new Map(
      Array.from(
        value as RecipeMap,
        ([key, each]) => [String(this.resolve(key, place)), this.resolve(each, place)],
      ),
    );
  }

  #evaluate(expression: string, place: string): RecipeValue {
    const name = expression.trim();
    if (/^[A-Za-z_]\w*$/.test(name)) return this.#value(name, place);
    return evaluate(expression.trim(), {
      place,
      variable: (name) => {
        const value = this.#value(name, place);
        if (typeof value === "number") return value;
        throw new InputError(
          `${place}: eval(${expression}) needs ${name}, which is ${showRecipeValue(value)}: wanted a number`,
        );
      },
    });
  }

  #value(name: string, place: string): RecipeValue {
    const known = this.#values.get(name);
    if (known !== undefined) return known;
    const raw = this.#raw.get(name);
    if (!raw) {
      const names = [...this.#raw.keys()].join(", ");
      throw new InputError(
        `${place}: there is no variable ${name}: wanted ${names === "" ? "none" : `one of ${names}`}`,
      );
    }
    if (this.#open.includes(name)) {
      const cycle = [...this.#open.slice(this.#open.indexOf(name)), name].join(" → ");
      throw new InputError(`${raw.place}: variables refer to each other in a circle: ${cycle}`);
    }
    this.#open.push(name);
    const value = this.resolve(raw.value, raw.place);
    this.#open.pop();
    this.#values.set(name, value);
    return value;
  }
}

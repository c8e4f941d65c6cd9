/**
 * The arithmetic of `eval(…)` in recipes: parsed and computed, never executed.
 *
 *     sum     = product {("+" | "-") product}
 *     product = sign {("*" | "/" | "//" | "%") sign}
 *     sign    = {"+" | "-"} power
 *     power   = value ["**" sign]
 *     value   = number | name | function "(" sum {"," sum} ")" | "(" sum ")"
 *
 * Operators mean what they mean in Python, whose expressions SparseML's recipes hold: `//` rounds down, `%` has the sign
 * of the divisor, `round` takes halves to the even number.
 * @module
 */
import { InputError } from "../core/errors.ts";

/** What an expression is computed in. */
export interface Scope {
  /** Where the expression stands, for messages. */
  readonly place: string;
  /** The value of a name. Throws InputError when there is none. */
  variable(name: string): number;
}

const functions: Readonly<Record<string, { readonly arity: number; compute(...args: number[]): number }>> = {
  min: { arity: Infinity, compute: Math.min },
  max: { arity: Infinity, compute: Math.max },
  round: { arity: 1, compute: roundHalfToEven },
  int: { arity: 1, compute: Math.trunc },
  floor: { arity: 1, compute: Math.floor },
  ceil: { arity: 1, compute: Math.ceil },
};

const tokenPattern =
  /\s*(?:((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|([A-Za-z_]\w*)|(\*\*|\/\/|[-+*/%(),]))/y;
const deepest = 100;

/**
 * The value of an expression.
 * @throws InputError for anything that is not arithmetic, and for a result that is not finite.
 */
export function evaluate(expression: string, scope: Scope): number {
  const tokens = tokensOf(expression, scope);
  let at = 0;
  let depth = 0;

  const refuse = (wanted: string): never => {
    const found = at < tokens.length ? `"${tokens[at]}"` : "the end";
    throw new InputError(`${scope.place}: eval(${expression}) has ${found}: wanted ${wanted}`);
  };
  const take = (...wanted: string[]): string | undefined =>
    wanted.includes(tokens[at]) ? tokens[at++] : undefined;

  function sum(): number {
    if (++depth > deepest) refuse(`parentheses at most ${deepest} deep`);
    let left = product();
    for (let operator; (operator = take("+", "-"));) {
      const right = product();
      left = operator === "+" ? left + right : left - right;
    }
    depth--;
    return left;
  }
  function product(): number {
    let left = sign();
    for (let operator; (operator = take("*", "/", "//", "%"));) {
      const right = sign();
      if (operator === "*") left *= right;
      else if (operator === "/") left /= right;
      else if (operator === "//") left = Math.floor(left / right);
      else left -= right * Math.floor(left / right);
    }
    return left;
  }
  function sign(): number {
    let negative = false;
    for (let operator; (operator = take("+", "-"));) if (operator === "-") negative = !negative;
    const value = power();
    return negative ? -value : value;
  }
  function power(): number {
    const base = value();
    if (!take("**")) return base;
    if (++depth > deepest) refuse(`powers at most ${deepest} deep`);
    const exponent = sign();
    depth--;
    return base ** exponent;
  }
  function value(): number {
    const token = tokens[at];
    if (take("(")) {
      const inner = sum();
      return take(")") ? inner : refuse(`")"`);
    }
    if (token === undefined || !/^[\w.]/.test(token)) return refuse('a number, a name or "("');
    at++;
    if (/^[0-9.]/.test(token)) return Number(token);
    return tokens[at] === "(" ? call(token) : scope.variable(token);
  }
  function call(name: string): number {
    at--;
    if (!Object.hasOwn(functions, name)) refuse(`a function: ${Object.keys(functions).join(", ")}`);
    at += 2;
    const args = [sum()];
    while (take(",")) args.push(sum());
    if (!take(")")) refuse(`")" or ","`);
    const { arity, compute } = functions[name];
    if (args.length > arity) {
      throw new InputError(
        `${scope.place}: eval(${expression}) gives ${name} ${args.length} arguments: wanted ${arity}`,
      );
    }
    return compute(...args);
  }

  const result = sum();
  if (at < tokens.length) refuse("an operator or the end");
  if (!Number.isFinite(result)) {
    throw new InputError(`${scope.place}: eval(${expression}) is ${result}: wanted a finite number`);
  }
  return result;
}

function tokensOf(expression: string, { place }: Scope): string[] {
  const tokens: string[] = [];
  let at = 0;
  while (expression.slice(at).trim() !== "") {
    tokenPattern.lastIndex = at;
    const match = tokenPattern.exec(expression);
    if (!match) {
      const found = JSON.stringify(expression.slice(at).trim()[0]);
      throw new InputError(
        `${place}: eval(${expression}) has ${found}: wanted numbers, names and + - * / // % ** ( ) ,`,
      );
    }
    tokens.push(match[1] ?? match[2] ?? match[3]);
    at = tokenPattern.lastIndex;
  }
  return tokens;
}

function roundHalfToEven(value: number): number {
  const below = Math.floor(value);
  const half = value - below === 0.5;
  return half ? below + Math.abs(below % 2) : Math.round(value);
}

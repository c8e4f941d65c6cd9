import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "../core/errors.ts";
import { evaluate } from "./arithmetic.ts";

const scope = {
  place: "here",
  variable(name: string): number {
    if (name === "epochs") return 30;
    throw new InputError(`here: there is no variable ${name}`);
  },
};

Deno.test("evaluate computes what Python computes", () => {
  const cases: [string, number][] = [
    ["1 + 2 * 3", 7],
    ["(1 + 2) * 3", 9],
    ["10 - 2 - 3", 5],
    ["24 / 4 / 2", 3],
    ["2 ** 3 ** 2", 512],
    ["-2 ** 2", -4],
    ["2 ** -1", 0.5],
    ["--3", 3],
    ["7 // 2", 3],
    ["-7 // 2", -4],
    ["-7 % 3", 2],
    ["7 % -3", -2],
    ["1e-2 + .5", 0.51],
    ["epochs * 2 / 30", 2],
    ["min(epochs, 4, 9) + max(1)", 5],
    ["round(2.5) + round(3.5)", 6],
    ["round(-2.5)", -2],
    ["round(2.4999)", 2],
    ["int(-1.5)", -1],
    ["floor(-1.5) + ceil(0.2)", -1],
  ];
  for (const [text, wanted] of cases) assert.equal(evaluate(text, scope), wanted, text);
});

Deno.test("evaluate refuses what is no arithmetic, in one line that says where", () => {
  const cases: [string, string][] = [
    ["1 +", `has the end: wanted a number, a name or "("`],
    ["", `has the end: wanted a number, a name or "("`],
    ["1 2", `has "2": wanted an operator or the end`],
    ["(1", `has the end: wanted ")"`],
    ["1 + * 2", `has "*": wanted a number, a name or "("`],
    ["Deno.exit(1)", `has ".": wanted numbers, names and + - * / // % ** ( ) ,`],
    ["epochs['x']", `has "[": wanted numbers, names and + - * / // % ** ( ) ,`],
    ["toString(1)", `has "toString": wanted a function: min, max, round, int, floor, ceil`],
    ["round(1, 2)", "gives round 2 arguments: wanted 1"],
    ["1 / 0", "is Infinity: wanted a finite number"],
    ["(-1) ** 0.5", "is NaN: wanted a finite number"],
  ];
  for (const [text, problem] of cases) {
    assert.throws(() => evaluate(text, scope), new InputError(`here: eval(${text}) ${problem}`));
  }
  assert.throws(() => evaluate("steps", scope), new InputError("here: there is no variable steps"));
});

Deno.test("evaluate is not drowned by depth", () => {
  const deep = 100_000;
  assert.throws(() => evaluate("(".repeat(deep), scope), /parentheses at most 100 deep/);
  assert.throws(() => evaluate("2**".repeat(deep), scope), /powers at most 100 deep/);
  assert.equal(evaluate("-".repeat(deep) + "1", scope), 1);
});

Deno.test("evaluate agrees with JavaScript on random expressions of the operators they share", () => {
  const { expression } = fc.letrec<{ expression: string; leaf: string }>((tie) => ({
    leaf: fc.integer({ min: 1, max: 99 }).map(String),
    expression: fc.oneof(
      { depthSize: "small" },
      tie("leaf"),
      fc.tuple(tie("expression"), fc.constantFrom("+", "-", "*", "/"), tie("expression"))
        .map(([left, operator, right]) => `(${left} ${operator} ${right})`),
      fc.tuple(
        tie("leaf"),
        fc.constantFrom("+", "-", "*"),
        tie("expression"),
        fc.constantFrom("*", "/"),
        tie("leaf"),
      )
        .map((parts) => parts.join(" ")),
    ),
  }));
  fc.assert(fc.property(expression, (text) => {
    const wanted = new Function(`return ${text}`)() as number;
    if (Number.isFinite(wanted)) assert.equal(evaluate(text, scope), wanted);
    else assert.throws(() => evaluate(text, scope), /wanted a finite number/);
  }));
});

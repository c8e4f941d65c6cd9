/**
 * Grid files: YAML in, the description of a grid out.
 *
 *     name: optimizers-sst2
 *     base: # flags of finetune for all variants
 *       model: ${model} # --set model=DIR
 *       train: ${data}/glue/SST-2/train.tsv.gz
 *       eval: ${data}/glue/SST-2/dev.tsv.gz
 *       learning-rate: 3e-5
 *     seeds: 5
 *     baseline: AdamW
 *     variants: # flags that differ; null takes one of base back
 *       AdamW: {}
 *       SGD: { optimizer: sgd, learning-rate: 0.01 }
 *     combinations: # one of each: "Adam, clipped", "Adam, free", …
 *       - Adam: { optimizer: adam }
 *         AMSGrad: { amsgrad: true }
 *       - clipped: {}
 *         free: { max-grad-norm: 0 }
 *     controls: # copies of AdamW with other rates
 *       of: AdamW
 *       learning-rate: [0.5, 0.75, 1.25, 1.5]
 * @module
 */
import { parse, YAMLParseError } from "yaml";
import { InputError } from "../core/errors.ts";
import { showValue } from "../core/json.ts";
import type { Flags } from "./flags.ts";
import type { Controls, GridDescription, NamedFlags } from "./grid.ts";

/** What stands in for `${name}`, by name. */
export type GridVariables = Readonly<Record<string, string>>;

type YamlMap = Readonly<Record<string, unknown>>;

/**
 * Reads a grid file's text.
 * @throws InputError for what is no YAML, a key that is unknown or missing, a value of the wrong kind, a variable that has no
 * value, and a value for which there is no variable.
 */
export function parseGridFile(text: string, source: string, variables: GridVariables): GridDescription {
  const filled = fill(parseYaml(text, source), source, variables);
  const grid = mapOf(filled, source, keys);
  const { combinations } = grid;
  if (combinations !== undefined && !Array.isArray(combinations)) {
    throw new InputError(`${source}: combinations is ${showValue(combinations)}: wanted a list of maps`);
  }
  return {
    name: textOf(grid.name, `${source}: name`),
    description: grid.description === undefined
      ? undefined
      : textOf(grid.description, `${source}: description`),
    base: mapOf(grid.base ?? {}, `${source}: base`) as Flags,
    seeds: seedsOf(grid.seeds, `${source}: seeds`),
    baseline: textOf(grid.baseline, `${source}: baseline`),
    variants: namedFlags(grid.variants, `${source}: variants`, source),
    combinations: combinations?.map((set, index) =>
      namedFlags(set, `${source}: combinations, item ${index + 1}`, source)
    ),
    controls: grid.controls === undefined ? undefined : controlsOf(grid.controls, `${source}: controls`),
  };
}

const keys = ["name", "description", "base", "seeds", "baseline", "variants", "combinations", "controls"];

/** Maps of flags by name; nothing at all stands for no flags. */
function namedFlags(value: unknown, place: string, source: string): NamedFlags {
  return Object.fromEntries(
    Object.entries(mapOf(value, place)).map(([name, flags]) =>
      [name, mapOf(flags ?? {}, `${source}: variant ${name}`) as Flags] as const
    ),
  );
}

function parseYaml(text: string, source: string): unknown {
  try {
    return parse(text, { prettyErrors: true, logLevel: "error" });
  } catch (error) {
    if (!(error instanceof YAMLParseError)) throw error;
    const { line, col } = error.linePos?.[0] ?? { line: 1, col: 1 };
    // The first line says what is wrong, those below show where.
    const problem = error.message.split("\n")[0].replace(/ at line \d+, column \d+:?$/, "");
    throw new InputError(`${source}, line ${line}, column ${col} is not valid YAML: ${problem}`);
  }
}

/** A value with its variables filled in. */
function fill(value: unknown, source: string, variables: GridVariables): unknown {
  const used = new Set<string>();
  const visit = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(visit);
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, visit(each)]));
    }
    if (typeof value !== "string") return value;
    return value.replace(/\$\{([^}]*)\}/g, (_, name: string) => {
      used.add(name);
      return Object.hasOwn(variables, name) ? variables[name] : "";
    });
  };
  const filled = visit(value);
  for (const name of used) {
    if (Object.hasOwn(variables, name)) continue;
    throw new InputError(`${source} uses \${${name}}, which has no value: wanted --set ${name}=VALUE`);
  }
  for (const name of Object.keys(variables)) {
    if (used.has(name)) continue;
    const wanted = used.size === 0 ? "none" : `one of ${[...used].join(", ")}`;
    throw new InputError(`--set ${name}=${variables[name]}: ${source} has no \${${name}}: wanted ${wanted}`);
  }
  return filled;
}

function mapOf(value: unknown, place: string, keys?: readonly string[]): YamlMap {
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new InputError(`${place} is ${showValue(value ?? "missing")}: wanted a map`);
  }
  const unknown = keys && Object.keys(value).find((key) => !keys.includes(key));
  if (unknown !== undefined) {
    throw new InputError(`${place} has a key ${unknown}: wanted one of ${keys!.join(", ")}`);
  }
  return value as YamlMap;
}

function textOf(value: unknown, place: string): string {
  if (typeof value === "string") return value;
  throw new InputError(`${place} is ${showValue(value ?? "missing")}: wanted a text`);
}

function seedsOf(value: unknown, place: string): number | readonly number[] {
  if (typeof value === "number" || Array.isArray(value)) return value;
  throw new InputError(`${place} is ${showValue(value ?? "missing")}: wanted how many, or a list`);
}

function controlsOf(value: unknown, place: string): Controls {
  const { of, "learning-rate": factors } = mapOf(value, place, ["of", "learning-rate"]);
  if (!Array.isArray(factors)) {
    throw new InputError(
      `${place}: learning-rate is ${showValue(factors ?? "missing")}: wanted a list of factors`,
    );
  }
  return { of: textOf(of, `${place}: of`), factors };
}

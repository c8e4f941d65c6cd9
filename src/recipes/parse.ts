/**
 * Recipes: YAML in, modifiers out.
 *
 * A recipe is what SparseML's legacy recipes are: variables, then one or several lists of modifiers.
 *
 *     num_epochs: 10
 *     training_modifiers:                 # any name that ends in "modifiers"
 *       - !EpochRangeModifier
 *         end_epoch: eval(num_epochs)
 *     pruning_modifiers:
 *       - !GMPruningModifier
 *         start_epoch: eval(num_epochs * 0.2)
 *         …
 *
 * In a Markdown file (`.md`) it is what stands between the first two lines `---`. A recipe is data: tags say which
 * modifier a map is and construct nothing else.
 * @module
 */
import {
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  Scalar,
  type YAMLMap,
} from "yaml";
import type { Document } from "yaml";
import { errorMessage, InputError } from "../core/errors.ts";
import { parseJson } from "../core/json.ts";
import type { PlaceOf } from "./fields.ts";
import { makeModifier, type Modifier } from "./modifiers.ts";
import { type RecipeMap, type RecipeValue, recipeValueOf } from "./values.ts";
import { type RawVariable, Variables } from "./variables.ts";

/** A recipe with its expressions evaluated. */
export interface Recipe {
  readonly variables: RecipeMap;
  /** In the order of the file. */
  readonly modifiers: readonly Modifier[];
}

/** Settings of `parseRecipe`. */
export interface ParseRecipeOptions {
  /** Path of the text, for messages; `.md` says that the recipe is the front matter. */
  readonly source: string;
  /** JSON object (`--recipe-args`): values that variables have instead of those in the file. */
  readonly recipeArgs?: string;
}

/**
 * Reads a recipe.
 * @throws InputError with source, line, modifier and field: not YAML, unknown names, values of the wrong kind, expressions
 * that cannot be computed.
 */
export function parseRecipe(text: string, { source, recipeArgs }: ParseRecipeOptions): Recipe {
  const reader = new YamlReader(/\.md$/i.test(source) ? frontMatter(text, source) : text, source);
  const raw = new Map<string, RawVariable>();
  const lists: [name: string, node: Node][] = [];
  for (const { name, node, key } of reader.entries(reader.root)) {
    if (/modifiers$/.test(name)) lists.push([name, node]);
    else raw.set(name, { value: reader.value(node), place: `${reader.place(key)}: ${name}` });
  }
  for (const [name, variable] of overrides(recipeArgs, raw)) raw.set(name, variable);
  const variables = new Variables(raw);
  const modifiers = lists.flatMap(([name, list]) =>
    reader.items(name, list).map((item) => readModifier(reader, item, variables))
  );
  return { variables: variables.all(), modifiers };
}

function readModifier(reader: YamlReader, item: Node, variables: Variables): Modifier {
  const { tag } = item;
  const name = tag?.startsWith("!") ? tag.slice(1) : undefined;
  if (!name) {
    throw new InputError(
      `${reader.place(item)} has no tag: wanted !, a modifier's name, and a line each for its fields`,
    );
  }
  const empty = isScalar(item) && (item.value === null || item.value === "");
  if (!isMap(item) && !empty) {
    throw new InputError(
      `${reader.tagPlace(item)}: !${name} has no map of fields: wanted "field: value" lines`,
    );
  }
  const entries = isMap(item) ? reader.entries(item) : [];
  const keys = new Map(entries.map(({ name, key }) => [name, key]));
  const placeOf: PlaceOf = (field) => {
    const key = field === undefined ? undefined : keys.get(field);
    return key ? reader.place(key) : reader.tagPlace(item);
  };
  const fields = entries.map(({ name: field, node, key }) =>
    [field, variables.resolve(reader.value(node), `${reader.place(key)}: ${name}: ${field}`)] as const
  );
  return makeModifier(name, new Map(fields), placeOf);
}

/** The front matter alone, on the lines where it stands. */
function frontMatter(text: string, source: string): string {
  const lines = text.split("\n");
  const isFence = (line: string) => line.trimEnd() === "---";
  const begin = lines.findIndex(isFence);
  const end = lines.findIndex((line, index) => index > begin && isFence(line));
  if (begin < 0 || end < 0) {
    throw new InputError(`${source} has no front matter: wanted the recipe between two lines ---`);
  }
  return lines.map((line, index) => index > begin && index < end ? line : "").join("\n");
}

function overrides(
  json: string | undefined,
  raw: ReadonlyMap<string, RawVariable>,
): [string, RawVariable][] {
  if (json === undefined) return [];
  const place = "--recipe-args";
  const object = parseJson(json, place, { uniqueKeys: true });
  if (typeof object !== "object" || object === null || Array.isArray(object)) {
    throw new InputError(`${place} is ${json}: wanted a JSON object of variables`);
  }
  return Object.entries(object).map(([name, value]) => {
    if (!raw.has(name)) {
      const known = [...raw.keys()].join(", ");
      throw new InputError(
        `${place}: the recipe has no variable ${name}: wanted ${known === "" ? "none" : `one of ${known}`}`,
      );
    }
    return [name, { value: recipeValueOf(value), place: `${place}: ${name}` }];
  });
}

interface Entry {
  readonly name: string;
  readonly key: Node;
  readonly node: Node;
}

/** Aliases can make a short text long or endless, so what is read is counted. */
const mostValues = 10_000;
const deepest = 100;

/** The nodes of a YAML text, with their lines. */
class YamlReader {
  readonly root: Node;
  readonly #text: string;
  readonly #source: string;
  readonly #lines = new LineCounter();
  readonly #document: Document.Parsed;
  #values = 0;

  constructor(text: string, source: string) {
    this.#text = text;
    this.#source = source;
    this.#document = parseDocument(text, {
      lineCounter: this.#lines,
      prettyErrors: false,
      logLevel: "error",
    });
    const [error] = this.#document.errors;
    if (error) {
      const { line, col } = this.#lines.linePos(error.pos[0]);
      const problem = error.code === "MULTIPLE_DOCS" ? "a second document begins" : errorMessage(error);
      throw new InputError(`${source}, line ${line}, column ${col} is not valid YAML: ${problem}`);
    }
    const root = this.#document.contents;
    if (!isMap(root)) throw new InputError(`${source} is no recipe: wanted a map of variables and modifiers`);
    this.root = root;
  }

  /** `recipe.yaml, line 12` */
  place(node: Node): string {
    return this.#line(node.range![0]);
  }

  /** The same of a node's tag, which may be on a line before it. */
  tagPlace(node: Node): string {
    return this.#line(this.#text.lastIndexOf(node.tag!, node.range![0]));
  }

  #line(offset: number): string {
    return `${this.#source}, line ${this.#lines.linePos(offset).line}`;
  }

  /** Keys and values of a map, aliases followed. */
  entries(map: Node): Entry[] {
    return (map as YAMLMap<Node, Node | null>).items.map(({ key, value }) => {
      this.#refuseTag(key);
      if (!isScalar(key)) throw new InputError(`${this.place(key)} has a key that is no name: wanted a name`);
      return {
        name: keyText(key.value, key.source),
        key,
        node: value ? this.#follow(value) : nothingAt(key),
      };
    });
  }

  /** Items of a list of modifiers. */
  items(name: string, list: Node): Node[] {
    if (isSeq<Node>(list)) return list.items.map((item) => this.#follow(item));
    throw new InputError(
      `${
        this.place(list)
      }: ${name} is no list: wanted "- !Modifier" items; stages and newer recipes are not supported`,
    );
  }

  /** What a node holds. Throws InputError for a tag, which only modifiers have. */
  value(node: Node, depth = 0): RecipeValue {
    if (++this.#values > mostValues || depth > deepest) {
      throw new InputError(
        `${this.#source} holds too much: wanted at most ${mostValues} values, ${deepest} deep, aliases followed`,
      );
    }
    const target = this.#follow(node);
    this.#refuseTag(target);
    if (isSeq<Node>(target)) return target.items.map((item) => this.value(item, depth + 1));
    if (isMap(target)) {
      return new Map(this.entries(target).map((entry) => [entry.name, this.value(entry.node, depth + 1)]));
    }
    const value = isScalar(target) ? target.value : null;
    if (
      value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean"
    ) {
      return value;
    }
    throw new InputError(
      `${this.place(node)} has the value ${value}: wanted a number, a text, a list or a map`,
    );
  }

  #follow(node: Node): Node {
    if (!isAlias(node)) return node;
    const target = node.resolve(this.#document);
    if (target) return target;
    throw new InputError(`${this.place(node)}: there is no anchor &${node.source}`);
  }

  #refuseTag(node: Node): void {
    const tag = isAlias(node) ? undefined : node.tag;
    if (tag === undefined) return;
    throw new InputError(
      `${this.place(node)} has the tag ${tag}: wanted tags on the items of modifier lists alone`,
    );
  }
}

/** A key without a value has null. */
function nothingAt({ range }: Node): Node {
  const node = new Scalar(null);
  node.range = range;
  return node;
}

/** Numbers as keys are kept as they are written. */
function keyText(value: unknown, source: string | undefined): string {
  return typeof value === "string" ? value : source ?? String(value);
}

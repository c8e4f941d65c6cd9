/**
 * The groups of parameters that MetaAdamW gives factors to: each is a token of its encoder.
 *
 * `fine_grained` follows Zhao and Liu (arXiv 2605.04055, section 3.2 and the authors' code), which looks at names and at
 * the classes of modules. Here a module with a weight of two dimensions is `linear`, as there are no classes to ask.
 * @module
 */
import { isDecayed, type ParameterSlot } from "../parameters.ts";

/**
 * `original`: the trainer's own groups, with decay and without; `fine_grained`: by type of layer, depth and whether it is
 * a bias; `single`: all in one, which leaves nothing to attend to.
 */
export type Grouping = "original" | "fine_grained" | "single";

/** All of them. */
export const groupings: readonly Grouping[] = ["original", "fine_grained", "single"];

/** Parameters that share their factors. */
export interface MetaGroup {
  /** For `fine_grained`: `attention.0.weight` is type, third of the depth, and `bias` for everything of rank 1. */
  readonly name: string;
  /** Numbers of its slots in the model's list, ascending. */
  readonly slots: readonly number[];
}

type NamedShape = Pick<ParameterSlot, "name" | "shape">;

/** Groups the parameters of a model, in order of first appearance; those that are not trained are in no group. */
export function metaGroups(
  slots: readonly NamedShape[],
  grouping: Grouping,
  isTrained: (slot: NamedShape) => boolean = () => true,
): MetaGroup[] {
  const nameOf = metaGroupNames(slots, grouping);
  const groups = new Map<string, number[]>();
  slots.forEach((slot, index) => {
    if (!isTrained(slot)) return;
    const name = nameOf(slot);
    const members = groups.get(name);
    if (members) members.push(index);
    else groups.set(name, [index]);
  });
  return Array.from(groups, ([name, members]) => ({ name, slots: members }));
}

/** The name of the group that a slot of a model belongs to: what `GroupOptions.split` wants. */
export function metaGroupNames(
  slots: readonly NamedShape[],
  grouping: Grouping,
): (slot: NamedShape) => string {
  if (grouping === "single") return () => "all";
  if (grouping === "original") return ({ name }) => isDecayed(name) ? "decayed" : "not decayed";
  const linear = new Set(
    slots.filter(({ name, shape }) => name.endsWith(".weight") && shape.length === 2)
      .map(({ name }) => moduleOf(name)),
  );
  const lastLayer = lastLayerOf(slots);
  return (slot) =>
    [typeOf(slot.name, linear), thirdOf(slot.name, lastLayer), isBias(slot) ? "bias" : "weight"].join(".");
}

/** Whether a parameter counts as a bias: everything of rank 1 does, LayerNorm's scale too. */
export function isBias({ name, shape }: NamedShape): boolean {
  return shape.length === 1 || name.endsWith("bias");
}

/** The first whole number in the path of a name, which is the layer; undefined outside of layers. */
export function layerOf(name: string): number | undefined {
  const found = /\.(\d+)(?:\.|$)/.exec(name);
  return found ? Number(found[1]) : undefined;
}

/** The highest layer of any name; 0 without layers. */
export function lastLayerOf(slots: readonly NamedShape[]): number {
  return slots.reduce((last, { name }) => Math.max(last, layerOf(name) ?? 0), 0);
}

/** The first that occurs in the name, in this order, decides. */
const typeNames: readonly (readonly [string, RegExp])[] = [
  ["embedding", /embed/],
  ["attention", /attn|attention/],
  ["ffn", /ffn|mlp|feed_forward/],
  ["layernorm", /norm/],
];

function typeOf(name: string, linear: ReadonlySet<string>): string {
  const lower = name.toLowerCase();
  for (const [type, pattern] of typeNames) if (pattern.test(lower)) return type;
  return linear.has(moduleOf(name)) ? "linear" : "other";
}

/** 0 for the lower third of the layers, 2 for the upper, 1 for the rest and for what is in no layer. */
function thirdOf(name: string, lastLayer: number): number {
  const layer = layerOf(name);
  if (layer === undefined || lastLayer <= 1) return 1;
  if (layer < lastLayer / 3) return 0;
  return layer > 2 * lastLayer / 3 ? 2 : 1;
}

function moduleOf(name: string): string {
  return name.slice(0, Math.max(0, name.lastIndexOf(".")));
}

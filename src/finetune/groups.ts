/**
 * Parameter groups: what is updated with the same rate and decay.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { nameMatcher } from "../core/name_pattern.ts";
import { isDecayed, type ParameterLayout, type ParameterSlot } from "./parameters.ts";

/** Parameters that are told the same at each step. */
export interface ParameterGroup {
  /** Checkpoint names. */
  readonly names: ReadonlySet<string>;
  /** Whether weight decay applies. */
  readonly decayed: boolean;
  /** Factor on the learning rate of the run. */
  readonly rateFactor: number;
  /** What `split` calls them. */
  readonly part: string;
}

/** How parameters are to be grouped. */
export interface GroupOptions {
  /**
   * Factor on the rate from one layer to the one below, in (0, 1]; 1 trains all layers alike. The head has the full rate,
   * the last layer d, the first d^layers and the embeddings d^(layers + 1), as in ELECTRA's fine-tuning (Clark et al.,
   * arXiv 2003.10555).
   */
  readonly layerDecay?: number;
  /** Parameters that are not trained. */
  readonly frozen?: ReadonlySet<string>;
  /** Splits groups further: parameters of different names are in different groups. */
  readonly split?: (slot: ParameterSlot) => string;
}

/** The groups of a model's parameters. A frozen parameter is in none. */
export function parameterGroups(
  { slots }: ParameterLayout,
  { layerDecay = 1, frozen = new Set(), split = () => "" }: GroupOptions = {},
): ParameterGroup[] {
  if (slots.every(({ name }) => frozen.has(name))) {
    throw new InputError("--freeze leaves nothing to train: wanted some parameters that it does not match");
  }
  const layers = 1 + Math.max(-1, ...slots.map(({ name }) => layerOf(name) ?? -1));
  const groups = new Map<string, ParameterGroup & { names: Set<string> }>();
  for (const slot of slots) {
    const { name } = slot;
    if (frozen.has(name)) continue;
    const decayed = isDecayed(name);
    const rateFactor = layerDecay ** depthBelowHead(name, layers);
    const part = split(slot);
    const key = `${part} ${decayed} ${rateFactor}`;
    const group = groups.get(key) ?? { names: new Set<string>(), decayed, rateFactor, part };
    group.names.add(name);
    groups.set(key, group);
  }
  return [...groups.values()];
}

/** The encoder layer that a parameter belongs to, from 0. */
function layerOf(name: string): number | undefined {
  const found = /(?:^|\.)layer\.(\d+)\./.exec(name);
  return found ? Number(found[1]) : undefined;
}

function depthBelowHead(name: string, layers: number): number {
  const layer = layerOf(name);
  if (layer !== undefined) return layers - layer;
  return name.includes("embeddings") ? layers + 1 : 0;
}

/** The parameters that patterns of a flag mean (`nameMatcher`). Throws `InputError` for one that means nothing. */
export function matchParameters(
  { slots }: Pick<ParameterLayout, "slots">,
  patterns: readonly string[],
  flag: string,
): Set<string> {
  const matched = new Set<string>();
  for (const pattern of patterns) {
    const matches = nameMatcher(pattern, flag);
    const found = slots.filter(({ name }) => matches(name));
    if (found.length === 0) {
      const examples = slots.slice(0, 2).map(({ name }) => name).join(", ");
      throw new InputError(`${flag} ${pattern} matches no parameter: wanted names such as ${examples}`);
    }
    for (const { name } of found) matched.add(name);
  }
  return matched;
}

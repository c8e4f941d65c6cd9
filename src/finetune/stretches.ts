/**
 * The flat range of parameters cut into stretches: what one pass of the optimiser goes over.
 * @module
 */
import { type PackedStructure, valueCount } from "../kernels/sparse_matmul/pack.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import type { ParameterGroup } from "./groups.ts";
import { type ParameterLayout, slotEnd } from "./parameters.ts";

/** Parameters one after the other that are updated alike. */
export interface Stretch {
  /** First element. */
  readonly begin: number;
  readonly count: number;
  /** Number of the group. */
  readonly group: number;
  /** Whether the mask says which of them are kept. */
  readonly masked: boolean;
}

/** Parameters that do not simply lie where the layout has them. */
export interface SpecialParameters {
  /** Matrices of which only stored values are there, by weight name: each is a stretch of its own. */
  readonly compacted?: ReadonlyMap<string, { readonly structure: PackedStructure }>;
  /** Name of a parameter that is updated otherwise: it is in no stretch. */
  readonly without?: string;
}

/** The stretches of all that is trained, in the order of the layout. */
export function stretchesOf(
  { slots }: ParameterLayout,
  groups: readonly ParameterGroup[],
  { compacted, without }: SpecialParameters = {},
): Stretch[] {
  const stretches: (Stretch & { count: number })[] = [];
  let isOpen = false;
  for (const slot of slots) {
    const matrix = compacted?.get(slot.name);
    const group = groups.findIndex(({ names }) => names.has(slot.name));
    if (group < 0 || slot.name === without) {
      isOpen = false;
    } else if (matrix) {
      stretches.push({ begin: slot.offset, count: valueCount(matrix.structure), group, masked: false });
      isOpen = false;
    } else {
      const masked = isPrunable(slot.name);
      const last = stretches.at(-1);
      if (isOpen && last && last.group === group && last.masked === masked) {
        last.count = slotEnd(slot) - last.begin;
      } else stretches.push({ begin: slot.offset, count: slotEnd(slot) - slot.offset, group, masked });
      isOpen = true;
    }
  }
  return stretches;
}

/** Names of the parameters that are trained. */
export function trainedNames(groups: readonly ParameterGroup[]): ReadonlySet<string> {
  return new Set(groups.flatMap(({ names }) => [...names]));
}

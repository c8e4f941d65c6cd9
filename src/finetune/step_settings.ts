/**
 * What a step is told, and how kernels read it: a block of scalars for each parameter group.
 * @module
 */
import type { GroupStep, UpdateRule } from "../kernels/optimizer/rule.ts";
import type { ParameterGroup } from "./groups.ts";

/** What a step is told. */
export interface StepSettings extends GroupStep {
  /** By group of `Trainer.groups`: factors on rate and decay. Absent: 1. */
  readonly factors?: readonly GroupFactors[];
}

/** Factors on what a step is told, for one group. */
export interface GroupFactors {
  readonly learningRate: number;
  readonly weightDecay: number;
}

/** The scalars of each group in a step, which counts from 1. */
export function groupScalars(
  rule: UpdateRule,
  groups: readonly ParameterGroup[],
  step: number,
  { learningRate, weightDecay, momentum, factors }: StepSettings,
): readonly Float32Array[] {
  return groups.map(({ decayed, rateFactor }, index) => {
    const factor = factors?.[index] ?? { learningRate: 1, weightDecay: 1 };
    return rule.scalarsOf({
      learningRate: learningRate * rateFactor * factor.learningRate,
      weightDecay: decayed ? weightDecay * factor.weightDecay : 0,
      momentum,
    }, step);
  });
}

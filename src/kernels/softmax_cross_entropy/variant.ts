/**
 * Which parts of the loss a kernel computes.
 * @module
 */

/** Constants of the loss; all are optional, and without any it is the mean cross-entropy. */
export interface CrossEntropyAttributes {
  /** ε in [0, 1]: share of the target that is spread over all classes; default 0. */
  readonly labelSmoothing?: number;
  /** h in [0, 1]: share of the teacher's loss in the whole; default 0. Above 0 teacher logits are wanted. */
  readonly hardness?: number;
  /** T > 0: what student's and teacher's logits are divided by for the teacher's loss; default 1. */
  readonly temperature?: number;
}

/** The attributes, all given. Throws TypeError for those that make no sense. */
export function settled(
  { labelSmoothing = 0, hardness = 0, temperature = 1 }: CrossEntropyAttributes,
): Required<CrossEntropyAttributes> {
  for (const [name, share] of Object.entries({ labelSmoothing, hardness })) {
    if (share >= 0 && share <= 1) continue;
    throw new TypeError(`Cannot apply softmaxCrossEntropy: ${name} is ${share}, wanted a number in [0, 1]`);
  }
  if (!(temperature > 0 && temperature < Infinity)) {
    throw new TypeError(
      `Cannot apply softmaxCrossEntropy: temperature is ${temperature}, wanted a positive number`,
    );
  }
  return { labelSmoothing, hardness, temperature };
}

/** What is compiled into a kernel. */
export interface LossVariant {
  /** Columns in a tile. */
  readonly tile: number;
  /** Whether labels count: hardness below 1. */
  readonly labelled: boolean;
  /** Whether the target is spread over all classes. */
  readonly smoothed: boolean;
  /** Whether classes have weights. */
  readonly weighted: boolean;
  /** Whether a teacher counts: hardness above 0. */
  readonly taught: boolean;
}

/** The kernel for those attributes and operands: what has no effect is left out. */
export function variantOf(
  attributes: CrossEntropyAttributes,
  { tile, hasWeights }: { readonly tile: number; readonly hasWeights: boolean },
): LossVariant {
  const { labelSmoothing, hardness } = settled(attributes);
  const labelled = hardness < 1;
  return {
    tile,
    labelled,
    smoothed: labelled && labelSmoothing > 0,
    weighted: labelled && hasWeights,
    taught: hardness > 0,
  };
}

/** Name of the kernel. */
export function variantKey({ tile, labelled, smoothed, weighted, taught }: LossVariant): string {
  const parts = [
    smoothed && "smoothed",
    weighted && "weighted",
    taught && (labelled ? "taught" : "teacher_only"),
  ];
  return [`softmax_cross_entropy_tile${tile}`, ...parts.filter((part) => part)].join("_");
}

/**
 * Pruning methods in the words of flags and settings.
 * @module
 */

/** Name of a pruning method. */
export type PruningMethodName = "magnitude" | "constant" | "movement" | "soft-movement" | "obert";

/** Constants of pruning methods; each takes some of them. */
export interface PruningOptions {
  /** Movement: the learning rate of the scores. */
  readonly scoreLearningRate?: number;
  /** Soft movement: the factor on the mean of the scores' sigmoids at the end. */
  readonly penalty?: number;
  /** Soft movement: the scores' sigmoid below which weights are pruned in the end. */
  readonly threshold?: number;
  /** oBERT: gradients that the Fisher matrix is estimated from at each refresh. */
  readonly gradients?: number;
  /** oBERT: what is added to its diagonal. */
  readonly dampening?: number;
  /** oBERT: size of its blocks. */
  readonly blockSize?: number;
  /** oBERT: estimates in a refresh, each for a part of the way. */
  readonly recomputations?: number;
  /** oBERT: make up for the pruned weights of a block together, not one by one. */
  readonly jointly?: boolean;
}

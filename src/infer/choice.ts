/**
 * Which kernel runs a matrix, and how it is cut: by rule here, by measuring in `tuning.ts`.
 * @module
 */
import type { StoredMatrix } from "../checkpoint/sparse_bitmask.ts";
import type { SparsePattern } from "../kernels/sparse_matmul/pack.ts";
import {
  type Blocking,
  type CacheTarget,
  chooseBlocking,
  type MatrixToCut,
} from "../kernels/sparse_matmul/blocking.ts";

/** What a choice depends on. */
export interface MatrixProfile extends MatrixToCut {
  /** Stored share of the weights. */
  readonly density: number;
}

/** A matrix to choose for. */
export interface PrunedMatrix {
  readonly profile: MatrixProfile;
  /** Its bits, so that a chooser can pack it. */
  readonly stored: StoredMatrix;
}

/** How a matrix will run. */
export interface KernelChoice {
  readonly kernel: "dense" | SparsePattern;
  /** How it is cut when it runs sparse. */
  readonly blocking: Blocking;
  /** For the reader. */
  readonly reason: string;
}

/** Chooses for all matrices of a model, in order. */
export type KernelChooser = (matrices: readonly PrunedMatrix[]) => Promise<readonly KernelChoice[]>;

/**
 * Densities (stored share of a matrix) below which the sparse kernels are taken. Where `bench --kernels` finds the times
 * equal, on AVX-512: single weights at 0.37 to 0.52 for 16 tokens and 0.58 to 0.72 from 128 on; blocks at 0.51 to 0.93
 * and 0.96 or more. A layer serves calls of all lengths, which are not known here.
 */
const breakEvenDensity = { "unstructured": 0.4, "4x1": 0.7 } as const;

/** Sparse below the break-even of the processor the project was measured on, cut for the caches of this one. */
export function chooseByRule(profile: MatrixProfile, target: CacheTarget): KernelChoice {
  const { pattern, density } = profile;
  const limit = breakEvenDensity[pattern];
  return {
    kernel: density < limit ? pattern : "dense",
    blocking: chooseBlocking(profile, target),
    reason: `density ${density.toFixed(3)}, and ${pattern} pays below ${limit}`,
  };
}

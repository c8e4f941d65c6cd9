/**
 * A session as callers see it: token ids in, logits out.
 * @module
 */
import type { BertConfig } from "../../models/config.ts";
import type { LayerChoice } from "./weights.ts";

/** Token ids of one text, special tokens included, with the segment of each. */
export interface SessionInput {
  /** Vocabulary ids, at least one. */
  readonly ids: Int32Array;
  /** 0 for the text, 1 for its pair; as long as `ids`. */
  readonly typeIds: Int32Array | Uint8Array;
}

/**
 * What the threads of a session are for: `latency` gives all of them to one run after another, `throughput` gives each
 * its own run, so that several calls are answered at once.
 */
export type SessionMode = "latency" | "throughput";

/** An opened model. */
export interface EncoderSession {
  /** Shape and labels of the model. */
  readonly config: BertConfig;
  /** How each prunable layer runs, and why. */
  readonly layers: readonly LayerChoice[];
  /** What the threads are for. */
  readonly mode: SessionMode;
  /** Worker threads. */
  readonly threads: number;
  /** Why as many: what was asked for, or what limits the cores. */
  readonly threadsReason: string;
  /** Whether each thread stays on a core of its own. */
  readonly pinned: boolean;
  /** Instruction set of the kernels. */
  readonly isa: string;
  /** Bytes of the shared memory: weights, activations, programs. */
  readonly arenaBytes: number;
  /** Bytes of the weights as the kernels read them. */
  readonly weightBytes: number;
  /**
   * Logits of each input, in order: one array of `config.labels.length` numbers a text. Calls made at the same time
   * may share a run; their answers are those of separate calls. Inputs must stay as they are until answered. Rejects
   * with `InputError` for ids the model does not have, or too many.
   */
  logits(inputs: readonly SessionInput[]): Promise<Float32Array[]>;
  /** Ends the workers and frees the memory, after the calls made before. Calling it again does nothing. */
  dispose(): Promise<void>;
}

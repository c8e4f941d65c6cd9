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

/** An opened model. */
export interface EncoderSession {
  /** Shape and labels of the model. */
  readonly config: BertConfig;
  /** How each prunable layer runs, and why. */
  readonly layers: readonly LayerChoice[];
  /** Worker threads. */
  readonly threads: number;
  /** Instruction set of the kernels. */
  readonly isa: string;
  /** Bytes of the shared memory: weights, activations, programs. */
  readonly arenaBytes: number;
  /** Bytes of the weights as the kernels read them. */
  readonly weightBytes: number;
  /** Logits of each input, in order: one array of `config.labels.length` numbers a text. */
  logits(inputs: readonly SessionInput[]): Promise<Float32Array[]>;
  /** Ends the workers and frees the memory. */
  dispose(): Promise<void>;
}

/**
 * `pipeline`: text in, labels with scores out, in the call shape of transformers.js.
 * @module
 */
import { isRegression } from "../../models/config.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import { InputError } from "../core/errors.ts";
import { checkTokenizer, loadTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { userTuning } from "./tuning_store.ts";
import { selectMachine } from "../machines/mod.ts";
import type { ExecutorFactory } from "../plan/executor.ts";
import type { EncoderSession, SessionMode } from "./encoder_session.ts";
import { Session } from "./session.ts";
import { softmax } from "./softmax.ts";

/** A label with its probability; of a regression model what it predicts. */
export interface ClassScore {
  /** Name of the class, or of the score. */
  readonly label: string;
  /** Softmax of the logits, 0 to 1; of a regression model the predicted number itself. */
  readonly score: number;
}

/** A text, or a text with its pair. */
export type PipelineInput = string | { readonly text: string; readonly pair?: string };

/** How a pipeline runs. */
export interface PipelineOptions {
  /** Worker threads; default: the cores this process may use, by affinity and container quota. */
  readonly threads?: number;
  /** `latency` (default): all threads answer one call after another. `throughput`: each answers its own. */
  readonly mode?: SessionMode;
  /** Keep each thread on a core of its own: only where nothing else runs. Default: if `LACUNA_PIN` is `1`. */
  readonly pin?: boolean;
  /** Only `cpu`. */
  readonly device?: "cpu";
  /** Only `fp32`. */
  readonly dtype?: "fp32";
  /** Instruction set; default: the fastest there is. */
  readonly isa?: string;
  /** Measure at the first load which kernels are fastest here, for a quarter of a second; default true. */
  readonly tune?: boolean;
  /** Longest sequence in tokens; default: what the model can take. Longer texts are an error unless `truncate`. */
  readonly maximumLength?: number;
  /** Cut texts that are too long instead of refusing them. Default true. */
  readonly truncate?: boolean;
}

/** Options of one call. */
export interface CallOptions {
  /** How many classes to give a text, best first, as a list; at least 1. A call without options gives the best one. */
  readonly top_k: number;
}

/** Classifies texts. */
export interface TextClassificationPipeline {
  /** The best class of one text. */
  (text: PipelineInput): Promise<ClassScore>;
  /** The best class of each text, in order. */
  (texts: readonly PipelineInput[]): Promise<ClassScore[]>;
  /** The `top_k` best classes of one text. */
  (text: PipelineInput, options: CallOptions): Promise<ClassScore[]>;
  /** The `top_k` best classes of each text. */
  (texts: readonly PipelineInput[], options: CallOptions): Promise<ClassScore[][]>;
  /** The session behind it: config, kernels by layer, plan. */
  readonly session: EncoderSession;
  /** The tokenizer. */
  readonly tokenizer: Tokenizer;
  /** Stops the workers and frees the memory. */
  dispose(): Promise<void>;
}

/** Tasks a pipeline can be made for. */
export type PipelineTask = "text-classification" | "sentiment-analysis";

const pipelineTasks: readonly PipelineTask[] = ["text-classification", "sentiment-analysis"];

/** Opens a model folder or hub id for a task. Throws `InputError` when the model or an option cannot be used. */
export async function openPipeline(
  task: PipelineTask,
  model: string,
  options: PipelineOptions,
  createExecutor: ExecutorFactory,
): Promise<TextClassificationPipeline> {
  if (!pipelineTasks.includes(task)) {
    throw new InputError(`the task is ${task}: wanted one of ${pipelineTasks.join(", ")}`);
  }
  if ((options.device ?? "cpu") !== "cpu") throw new InputError(`device is ${options.device}: wanted cpu`);
  if ((options.dtype ?? "fp32") !== "fp32") throw new InputError(`dtype is ${options.dtype}: wanted fp32`);
  const opened = await openModel(model);
  if (opened.missing.length > 0) {
    throw new InputError(`${model} lacks ${opened.missing.join(", ")}: fine-tune it for a task first`);
  }
  const tokenizer = loadTokenizer(opened.tokenizerFiles);
  checkTokenizer(tokenizer, opened.config);
  const positions = opened.config.maximumPositions;
  const maximumLength = options.maximumLength ?? positions;
  if (!(Number.isInteger(maximumLength) && maximumLength >= 3 && maximumLength <= positions)) {
    throw new InputError(`maximumLength is ${maximumLength}: wanted a whole number from 3 to ${positions}`);
  }
  const session = await Session.open(opened, {
    machine: selectMachine(options.isa),
    threads: options.threads,
    mode: options.mode,
    createExecutor,
    tuning: options.tune === false ? undefined : userTuning(),
  });

  const encode = (input: PipelineInput) => {
    const { text, pair } = typeof input === "string" ? { text: input, pair: undefined } : input ?? {};
    if (typeof text !== "string") throw new InputError(`a text is ${typeof text}: wanted a string`);
    if (pair !== undefined && typeof pair !== "string") {
      throw new InputError(`a pair is ${typeof pair}: wanted a string`);
    }
    const { ids, typeIds, fullLength, truncated } = tokenizer.encode(text, pair, maximumLength);
    if (truncated && options.truncate === false) {
      throw new InputError(`a text has ${fullLength} tokens: wanted at most ${maximumLength}`);
    }
    return { ids: Int32Array.from(ids), typeIds: Uint8Array.from(typeIds) };
  };
  async function classify(
    inputs: PipelineInput | readonly PipelineInput[],
    call?: CallOptions,
  ): Promise<ClassScore | ClassScore[] | ClassScore[][]> {
    if (call !== undefined && !(Number.isInteger(call.top_k) && call.top_k >= 1)) {
      throw new InputError(`top_k is ${call.top_k}: wanted a whole number of at least 1`);
    }
    const isList = Array.isArray(inputs);
    const list = (isList ? inputs : [inputs]) as readonly PipelineInput[];
    const logits = await session.logits(list.map(encode));
    const ranked = logits.map((each) => rank(each, opened.config.labels));
    const answers = call === undefined
      ? ranked.map((scores) => scores[0])
      : ranked.map((scores) => scores.slice(0, call.top_k));
    return isList ? answers as ClassScore[] | ClassScore[][] : answers[0];
  }
  return Object.assign(classify, {
    session,
    tokenizer,
    dispose: () => session.dispose(),
  }) as unknown as TextClassificationPipeline;
}

/** Softmax of the logits, best class first; a score as it is. A model with NaN or infinite weights is refused, not answered with. */
function rank(logits: Float32Array, labels: readonly string[]): ClassScore[] {
  if (!logits.every(Number.isFinite)) {
    throw new InputError(`the logits of a text are ${logits.join(", ")}: the model's weights are damaged`);
  }
  if (isRegression({ labels })) return [{ label: labels[0], score: logits[0] }];
  const scores = softmax(logits);
  return labels.map((label, k) => ({ label, score: scores[k] })).sort((a, b) => b.score - a.score);
}

/**
 * The training state on disk: everything a run needs to go on to the same numbers as if it had never stopped.
 *
 * One safetensors file holds weights, the optimiser's states and mask, and what movement pruning gathers; its metadata holds
 * the rest as JSON, so that the file is replaced in one rename.
 * @module
 */
import { dirname, join } from "node:path";
import { bytesOf, openSafetensors, safetensorsContent } from "../checkpoint/safetensors.ts";
import { InputError } from "../core/errors.ts";
import { ensureFolder, exists, removeLeftovers, writeFileAtomic } from "../core/files.ts";
import type { Fingerprint } from "./fingerprint.ts";
import type { Evaluation } from "../evaluate/metrics.ts";
import type { LossScale } from "../kernels/loss_scale/reference.ts";
import type { MovementActivity } from "./movement_part.ts";
import type { LayerSparsity } from "../pruning/sparsity.ts";
import type { MetaState } from "./meta/meta_adamw.ts";
import type { Trainer } from "./trainer.ts";

/** An evaluation with its place in the run. */
export interface EvaluationRecord extends Evaluation {
  /** Optimiser steps done before it. */
  readonly completedSteps: number;
  /** Share of the prunable weights that were masked. */
  readonly sparsity: number;
}

/** Where a run is. */
export interface RunProgress {
  /** Whose arithmetic the run began with (`arithmeticOf`). */
  readonly arithmetic: string;
  completedSteps: number;
  /** Seconds spent in steps, over all sittings. */
  trainingSeconds: number;
  /** Tokens trained on, over all sittings. */
  trainedTokens: number;
  /** What each stage came to, over all sittings. */
  readonly stages: Readonly<Record<StageName, StageProgress>>;
  /** Examples trained on, those of every epoch, over all sittings. */
  trainedExamples: number;
  /** The sparsity of the present mask. */
  sparsity: number;
  /** The prunable matrices as they were before the first step. */
  readonly prunable: readonly LayerSparsity[];
  /** What MetaAdamW has learnt; absent with another optimiser. */
  readonly meta?: MetaState;
  /** Evaluation of the dense model, just before pruning. */
  dense?: EvaluationRecord;
  /** Best evaluation at the final sparsity; its weights are in `best.safetensors`. */
  best?: EvaluationRecord;
  readonly evaluations: EvaluationRecord[];
}

/** Name of a stage of the pruning schedule. */
export type StageName = "dense" | "pruning" | "recovery";

/** All of them, in order. */
export const stageNames: readonly StageName[] = ["dense", "pruning", "recovery"];

/** What a stage came to. */
export interface StageProgress {
  steps: number;
  seconds: number;
  tokens: number;
}

/** No steps taken yet. */
export function noStages(): Record<StageName, StageProgress> {
  const none = () => ({ steps: 0, seconds: 0, tokens: 0 });
  return { dense: none(), pruning: none(), recovery: none() };
}

const stateName = join("training", "state.safetensors");
const bestName = join("training", "best.safetensors");

/** Whether a run was begun in a folder: it can be resumed, and must not be overwritten unasked. */
export function holdsState(out: string): Promise<boolean> {
  return exists(join(out, stateName));
}

/** Saves everything. The previous save stays until this one is on the disk. */
export async function saveState(
  out: string,
  trainer: Trainer<never>,
  progress: RunProgress,
  fingerprint: Fingerprint,
): Promise<void> {
  const path = join(out, stateName);
  await ensureFolder(dirname(path));
  await trainer.settle();
  const { movement, lossScale } = trainer;
  const flat = ([name, data]: readonly [string, Float32Array]) => ({
    name,
    dtype: "F32" as const,
    shape: [data.length],
    data: () => bytesOf(data),
  });
  const mask = trainer.mask;
  await writeFileAtomic(
    path,
    safetensorsContent([
      ...arraysOf(trainer).map(flat),
      { name: "mask", dtype: "U8", shape: [mask.byteLength], data: () => bytesOf(mask) },
    ], {
      progress: JSON.stringify(progress),
      fingerprint: JSON.stringify(fingerprint),
      ...(movement?.activity ? { movement: JSON.stringify(movement.activity) } : {}),
      ...(lossScale ? { lossScale: JSON.stringify(lossScale) } : {}),
    }),
  );
}

/** The arrays that a run goes on with, by name. */
function arraysOf({ weights, states, movement }: Trainer<never>): (readonly [string, Float32Array])[] {
  return [["weights", weights], ...states, ...(movement?.activity ? movement.arrays : [])];
}

/** Loads a saved run into the trainer. Throws `InputError` when there is none or it is of another run. */
export async function loadState(
  out: string,
  trainer: Trainer<never>,
  fingerprint: Fingerprint,
): Promise<RunProgress> {
  const path = join(out, stateName);
  const file = await openSafetensors(path);
  const saved = parse<Fingerprint>(file.metadata.fingerprint, path);
  const names = [...new Set([...Object.keys(saved), ...Object.keys(fingerprint)])];
  // A setting that only one side has is the reason for what else differs, so it is named first.
  names.sort((a, b) => Number(a in saved && a in fingerprint) - Number(b in saved && b in fingerprint));
  for (const name of names) {
    if (saved[name] === fingerprint[name]) continue;
    throw new InputError(
      `Cannot resume ${out}: ${name} was ${saved[name] ?? "not set"} and is ${
        fingerprint[name] ?? "not set"
      } now`,
    );
  }
  const progress = parse<RunProgress>(file.metadata.progress, path);
  const { movement, lossScale } = file.metadata;
  if (movement) {
    const { names, isSoft, steps } = parse<MovementActivity>(movement, path);
    await trainer.beginMovement(names, isSoft, steps);
  }
  for (const [name, target] of arraysOf(trainer)) {
    const { shape } = file.info(name);
    if (shape.length !== 1 || shape[0] !== target.length) {
      throw new InputError(`${path}: ${name} has shape [${shape}], wanted [${target.length}]`);
    }
    target.set(await file.float32(name));
  }
  const mask = await file.bytes("mask");
  if (mask.length !== trainer.mask.byteLength) {
    throw new InputError(`${path}: mask has ${mask.length} bytes, wanted ${trainer.mask.byteLength}`);
  }
  bytesOf(trainer.mask).set(mask);
  trainer.applyMask();
  if (lossScale) trainer.restoreLossScale(parse<LossScale>(lossScale, path));
  return progress;
}

/** Removes the parts of files that a run left which was killed while it wrote. Call it when a run has begun in `out`. */
export async function clearLeftovers(out: string): Promise<void> {
  for (const folder of ["", "training", "export", join("export", "onnx")]) {
    await removeLeftovers(join(out, folder));
  }
}

/** Keeps the present weights as the best so far. */
export async function saveBest(out: string, trainer: Trainer<never>): Promise<void> {
  const path = join(out, bestName);
  await ensureFolder(dirname(path));
  await trainer.settle();
  const { weights } = trainer;
  await writeFileAtomic(
    path,
    safetensorsContent([{
      name: "weights",
      dtype: "F32",
      shape: [weights.length],
      data: () => bytesOf(weights),
    }]),
  );
}

/** Puts the best weights back into the trainer. */
export async function loadBest(out: string, trainer: Trainer<never>): Promise<void> {
  const file = await openSafetensors(join(out, bestName));
  await trainer.settle();
  trainer.weights.set(await file.float32("weights"));
}

function parse<T>(text: string | undefined, path: string): T {
  try {
    return JSON.parse(text ?? "") as T;
  } catch {
    throw new InputError(`${path} is no training state: its metadata is missing or damaged`);
  }
}

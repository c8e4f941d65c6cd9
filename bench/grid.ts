/**
 * The whole grid: shapes × sparsities × patterns × lengths × batches, lacuna against ONNX Runtime, in turns.
 *
 *     deno run -A bench/grid.ts --out bench/results/fp32 [--presets bert-tiny,minilm-l6,bert-base] [--seconds 0.5]
 *         [--tokens 16,64,128,384] [--batches 1,8,32] [--threads 2]
 *
 * Writes `<out>.json` and `<out>.md` after each preset, in the place of that preset's earlier results; those of other
 * presets stay. All engines of a preset are open at once (BERT-base: about 9 GB) and take turns on the same ids.
 * @module
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { presetConfig } from "../models/presets.ts";
import { openModel } from "../src/checkpoint/model_folder.ts";
import { chooseThreads } from "../src/core/cores.ts";
import { errorMessage, InputError } from "../src/core/errors.ts";
import { ensureFolder, exists, writeFileAtomic } from "../src/core/files.ts";
import { randomKey, RandomStream } from "../src/core/random.ts";
import { writeOnnx } from "../src/export/onnx.ts";
import { onnxRuntime } from "./baselines.ts";
import { compareLogits } from "./compare.ts";
import { type EncodedBatch, type Engine, type EngineSource, openSource } from "./engine.ts";
import { formatGrid, type GridCell, type GridPart, mergePart, parseGrid } from "./grid_report.ts";
import { lacuna } from "./lacuna.ts";
import { describeMachine } from "./machine.ts";
import { interleave, type Measurement } from "./measure.ts";
import { writeSyntheticModel } from "./model.ts";
import { agreementLimit } from "./result.ts";

/** A model of the grid. */
type Variant = Pick<GridCell, "pattern" | "sparsity">;

const variants: readonly Variant[] = [
  { pattern: "dense", sparsity: 0 },
  ...[0.5, 0.7, 0.8, 0.9, 0.95].map((sparsity) => ({ pattern: "unstructured" as const, sparsity })),
  { pattern: "4x1", sparsity: 0.9 },
];

/** Models that are measured on one thread as well, which takes nearly twice as long. */
const scaled = ({ pattern, sparsity }: Variant) => pattern === "dense" || sparsity === 0.9;

/** What to measure. */
export interface GridOptions {
  readonly preset: string;
  /** Texts of all these lengths … */
  readonly tokens: readonly number[];
  /** … in calls of all these sizes. */
  readonly batches: readonly number[];
  /** Threads of every engine; one thread is measured too. */
  readonly threads: number;
  /** Timed seconds per engine and shape. A call that takes long is timed twice all the same. */
  readonly seconds: number;
  /** Hears a line after each step. */
  readonly note: (text: string) => void;
}

/** An engine with its place in the tables. */
interface Entrant {
  readonly engine: Engine;
  /** Absent: ONNX Runtime. */
  readonly variant?: Variant;
}

/** Fewest timed rounds of turns. */
const leastRounds = 2;

/** Measures one preset. Throws when engines disagree: their latencies would mean nothing. */
export async function measurePreset(options: GridOptions): Promise<GridPart> {
  const { preset, tokens, batches, threads, note } = options;
  const machine = await describeMachine();
  const folder = await Deno.makeTempDir({ prefix: "lacuna-grid-" });
  const entrants: Entrant[] = [];
  try {
    for await (const entrant of openEntrants(preset, threads, folder)) {
      entrants.push(entrant);
      note(`${preset}: ${entrants.length} engines are open`);
    }
    const shapes = tokens.flatMap((length) => batches.map((batch) => ({ tokens: length, batch })));
    // Small shapes first: each tells how long the next will take.
    shapes.sort((a, b) => a.tokens * a.batch - b.tokens * b.batch);
    const measured = new Map<string, GridCell[]>();
    let msPerToken = await timeOnce(entrants, shapes[0], preset);
    for (const [index, shape] of shapes.entries()) {
      const { cells, callMs } = await measureShape(entrants, shape, msPerToken, options);
      measured.set(`${shape.tokens} ${shape.batch}`, cells);
      msPerToken = callMs / (shape.tokens * shape.batch);
      const leftMs = shapes.slice(index + 1)
        .reduce((sum, next) => sum + expectedMs(next, msPerToken, entrants.length, options.seconds), 0);
      note(
        `${preset} ${shape.tokens} tokens × ${shape.batch}: ONNX Runtime ${
          cells[0].onnxRuntimeMs.toFixed(2)
        } ms, ` +
          `${index + 1} of ${shapes.length} shapes, about ${(leftMs / 60_000).toFixed(1)} min left`,
      );
    }
    const cells = tokens.flatMap((length) => batches.flatMap((batch) => measured.get(`${length} ${batch}`)!));
    return { preset, machine, threads, cells };
  } finally {
    for (const { engine } of entrants) await engine.dispose();
    await Deno.remove(folder, { recursive: true });
  }
}

/**
 * Writes the models and opens every engine, on `threads` and on one. All variants are pruned from the same weights.
 * Zeros cost ONNX Runtime nothing and save it nothing, so its one model is the dense one, in two graphs.
 */
async function* openEntrants(preset: string, threads: number, folder: string): AsyncGenerator<Entrant> {
  const open = async function* (source: (threads: number) => EngineSource, variant?: Variant) {
    const counts = threads > 1 && (!variant || scaled(variant)) ? [threads, 1] : [threads];
    for (const count of counts) yield { engine: await openSource(source(count)), variant };
  };
  for (const variant of variants) {
    const { pattern, sparsity } = variant;
    const model = join(folder, `${pattern}-${sparsity}`);
    const stored = pattern === "dense" ? "unstructured" : pattern;
    await writeSyntheticModel({ preset, sparsity, pattern: stored, folder: model });
    yield* open((count) => lacuna({ folder: model, threads: count, sparsity }), variant);
  }
  const { config, tensors } = await openModel(join(folder, "dense-0"));
  const weights = new Map<string, Float32Array>();
  for (const name of tensors.names) weights.set(name, await tensors.weight(name, tensors.shape(name)!));
  for (const operators of ["standard", "fused"] as const) {
    const path = join(folder, `${operators}.onnx`);
    await writeOnnx(path, config, (name) => weights.get(name)!, { operators });
    yield* open((count) => onnxRuntime({ path, dtype: "fp32", sparsity: 0, threads: count }));
  }
}

/** A length and a batch. */
type Shape = Pick<GridCell, "tokens" | "batch">;

/** Time of a call of every engine over its tokens, after one that makes the plans. */
async function timeOnce(entrants: readonly Entrant[], shape: Shape, preset: string): Promise<number> {
  const input = randomBatch(shape, presetConfig(preset).vocabularySize);
  for (const { engine } of entrants) await engine.run(input);
  const start = performance.now();
  for (const { engine } of entrants) await engine.run(input);
  return (performance.now() - start) / (shape.tokens * shape.batch);
}

const turnMs = 60;

/**
 * Measures all engines on one batch, in as many rounds as `seconds` have room for. `msPerToken` is the time of a call of
 * every engine over its tokens, on another batch; `callMs` that of such a call on this one.
 */
async function measureShape(
  entrants: readonly Entrant[],
  shape: Shape,
  msPerToken: number,
  { preset, threads, seconds }: GridOptions,
): Promise<{ cells: GridCell[]; callMs: number }> {
  const input = randomBatch(shape, presetConfig(preset).vocabularySize);
  const answers: Float32Array[] = [];
  const roundMs = Math.max(msPerToken * shape.tokens * shape.batch, turnMs * entrants.length);
  const rounds = Math.max(leastRounds, Math.ceil(seconds * 1000 * entrants.length / roundMs));
  const measured = await interleave(
    entrants.map(({ engine }, i) => ({
      name: engine.name,
      run: async () => answers[i] = await engine.run(input),
    })),
    { rounds, turnMs, warmup: 0 },
  );

  const find = (count: number, variant?: Variant) =>
    entrants.flatMap((entrant, i) =>
      entrant.variant === variant && entrant.engine.threads === count ? [i] : []
    );
  const fastest = (indices: readonly number[]): Measurement | undefined =>
    indices.map((i) => measured[i]).sort((a, b) => a.summary.p50 - b.summary.p50)[0];
  const oneThread = (variant?: Variant) => threads > 1 ? fastest(find(1, variant))?.summary.p50 : undefined;
  const reference = find(threads);
  const onnxRuntimeMs = fastest(reference)!.summary.p50;
  const cells = variants.map((variant): GridCell => {
    const [index] = find(threads, variant);
    const what = `${preset}, ${variant.pattern} ${variant.sparsity}, ${shape.tokens} tokens × ${shape.batch}`;
    const difference = variant.pattern === "dense"
      ? compareLogits([answers[index]], [answers[reference[0]]]).relative
      : undefined;
    if (difference !== undefined && !(difference <= agreementLimit)) {
      throw new Error(`${what}: logits differ from ONNX Runtime's by ${difference} of their range`);
    }
    const { latenciesMs, summary: { p50, p95 } } = measured[index];
    return {
      ...shape,
      ...{ sparsity: variant.sparsity, pattern: variant.pattern },
      latencyMs: p50,
      p95Ms: p95,
      calls: latenciesMs.length,
      oneThreadMs: oneThread(variant),
      onnxRuntimeMs,
      onnxRuntimeOneThreadMs: oneThread(),
      speedup: onnxRuntimeMs / p50,
      relativeLogitDifference: difference,
    };
  });
  const callMs = measured.reduce((sum, { summary }) => sum + summary.p50, 0);
  return { cells, callMs };
}

/** How long a shape takes, from the time of a call of every engine over its tokens. */
function expectedMs({ tokens, batch }: Shape, msPerToken: number, engines: number, seconds: number): number {
  const callMs = msPerToken * tokens * batch;
  // A turn begins with an untimed call.
  return Math.max(seconds * 1000 * engines, leastRounds * callMs) + leastRounds * callMs;
}

/** Random ids, no padding, one segment. */
function randomBatch({ tokens, batch }: Shape, vocabularySize: number): EncodedBatch {
  const stream = new RandomStream(randomKey(0, "grid", batch, tokens));
  const rows = (draw: () => number) =>
    Array.from({ length: batch }, () => Array.from({ length: tokens }, draw));
  return {
    inputIds: rows(() => stream.below(vocabularySize)),
    attentionMask: rows(() => 1),
    tokenTypeIds: rows(() => 0),
  };
}

/** `16,64` as numbers. */
function parseList(flag: string, text: string): number[] {
  const numbers = text.split(",").map(Number);
  if (numbers.every((value) => Number.isInteger(value) && value >= 1)) return numbers;
  throw new InputError(`--${flag} is ${text}: wanted whole numbers from 1, with commas between`);
}

/** The flags as given, or their defaults. */
function parseFlags() {
  try {
    return parseArgs({
      options: {
        out: { type: "string", default: "bench/results/fp32" },
        presets: { type: "string", default: "bert-tiny,minilm-l6,bert-base" },
        tokens: { type: "string", default: "16,64,128,384" },
        batches: { type: "string", default: "1,8,32" },
        seconds: { type: "string", default: "0.5" },
        threads: { type: "string" },
      },
    }).values;
  } catch (error) {
    throw new InputError(errorMessage(error));
  }
}

async function main(): Promise<void> {
  const values = parseFlags();
  const json = `${values.out}.json`;
  const tokens = parseList("tokens", values.tokens);
  const batches = parseList("batches", values.batches);
  const seconds = Number(values.seconds);
  if (!(seconds > 0)) throw new InputError(`--seconds is ${values.seconds}: wanted a number above 0`);
  const threads = chooseThreads(values.threads === undefined ? undefined : Number(values.threads)).count;
  await ensureFolder(join(values.out, ".."));
  for (const preset of values.presets.split(",")) {
    // Read before anything is measured: what is there must be a grid.
    const earlier = async () => await exists(json) ? parseGrid(await Deno.readTextFile(json), json) : [];
    await earlier();
    const note = (text: string) => console.error(text);
    const part = await measurePreset({ preset, tokens, batches, threads, seconds, note });
    const parts = mergePart(await earlier(), part);
    await writeFileAtomic(json, JSON.stringify({ parts }, null, 1) + "\n");
    await writeFileAtomic(`${values.out}.md`, formatGrid(parts));
  }
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    console.error(`grid: ${errorMessage(error)}`);
    Deno.exit(2);
  }
}

/**
 * lacuna as an engine of the benchmark, opened through the public API as a user would.
 *
 * This is an engine module (`engine.ts`): `lacuna` makes the source that `openEngine` opens.
 * @module
 */
import { openSession, type SessionInput } from "../mod.ts";
import type { EncodedBatch, Engine, EngineSource } from "./engine.ts";

/** A model folder for lacuna. */
export interface LacunaOptions {
  readonly folder: string;
  readonly threads: number;
  /** Instruction set; absent: the fastest. */
  readonly isa?: string;
  /** Run every layer with the dense kernels. */
  readonly dense?: boolean;
  /** Choose kernels by rule instead of measuring them at the first load. */
  readonly noTune?: boolean;
  /** Share of zeros among the prunable weights. */
  readonly sparsity: number;
}

/** The source of a lacuna engine. */
export function lacuna(options: LacunaOptions): EngineSource {
  return { module: import.meta.url, options: { ...options } };
}

/** Opens a session (see `EngineModule`). */
export async function openEngine(options: Readonly<Record<string, unknown>>): Promise<Engine> {
  const { folder, threads, isa, dense, noTune, sparsity } = options as unknown as LacunaOptions;
  const { size } = await Deno.stat(`${folder}/model.safetensors`);
  const session = await openSession(folder, { threads, isa, dense, tune: !noTune });
  const patterns = new Set(session.layers.map(({ kernel }) => kernel));
  const isDense = patterns.size === 1 && patterns.has("dense");
  return {
    name: "lacuna",
    backend: session.isa.startsWith("wasm") ? "wasm" : "native",
    dtype: "fp32",
    weights: isDense ? "dense" : "sparse",
    pattern: [...patterns].filter((pattern) => isDense || pattern !== "dense").join("+"),
    sparsity,
    threads,
    fileBytes: size,
    async run(batch: EncodedBatch): Promise<Float32Array> {
      const logits = await session.logits(inputsOf(batch));
      const classes = session.config.labels.length;
      const flat = new Float32Array(logits.length * classes);
      logits.forEach((row, index) => flat.set(row, index * classes));
      return flat;
    },
    dispose: () => session.dispose(),
  };
}

/** Padding is left out: lacuna packs sequences end to end. */
function inputsOf(batch: EncodedBatch): SessionInput[] {
  return batch.inputIds.map((ids, row) => {
    const length = batch.attentionMask[row].reduce((sum, bit) => sum + bit, 0);
    return {
      ids: Int32Array.from(ids.slice(0, length)),
      typeIds: Uint8Array.from(batch.tokenTypeIds[row].slice(0, length)),
    };
  });
}

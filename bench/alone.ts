/**
 * Opens one engine in a process of its own, to learn what it costs by itself.
 *
 * Engines measured in one process share its memory, its loaded libraries and its warmed-up code, so none of that can be
 * told apart there. Here a fresh process opens one engine and answers a few batches, and reports what the
 * operating system says it holds. The figures are those of the whole process, Deno included (about 50 MB).
 *
 * Run directly, this file is that process: an `AloneTask` on standard input, an `AloneResult` on standard output.
 * @module
 */
import { fileURLToPath } from "node:url";
import { type EncodedBatch, type EngineSource, openSource } from "./engine.ts";

/** What the process does. */
export interface AloneTask {
  /** The engine to open. */
  readonly source: EngineSource;
  /** What it answers, again and again. */
  readonly batch: EncodedBatch;
}

/** What it found. */
export interface AloneResult {
  /** From importing the engine's module to a model ready to answer. Files are in the page cache. */
  readonly loadMs: number;
  /** From importing the engine's module to the first logits. */
  readonly firstAnswerMs: number;
  /** Resident memory after `answers` answers, in bytes: what a server holds while it runs. */
  readonly residentBytes: number;
}

/** Enough for allocators to have grown to their working size. */
const answers = 10;

/** Runs a task in a fresh process. Errors of the engine carry its message. */
export async function measureAlone(task: AloneTask): Promise<AloneResult> {
  const config = fileURLToPath(new URL("../deno.json", import.meta.url));
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", "--quiet", `--config=${config}`, import.meta.url],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(JSON.stringify(task)));
  await writer.close();
  const { success, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  if (!success) {
    throw new Error(`Cannot measure ${task.source.module} alone: ${decoder.decode(stderr).trim()}`);
  }
  return JSON.parse(decoder.decode(stdout));
}

async function main(): Promise<void> {
  const { source, batch } = await new Response(Deno.stdin.readable).json() as AloneTask;
  const start = performance.now();
  const engine = await openSource(source);
  const loadMs = performance.now() - start;
  await engine.run(batch);
  const firstAnswerMs = performance.now() - start;
  for (let answer = 1; answer < answers; answer++) await engine.run(batch);
  const residentBytes = Deno.memoryUsage().rss;
  await engine.dispose();
  const result: AloneResult = { loadMs, firstAnswerMs, residentBytes };
  console.log(JSON.stringify(result));
}

if (import.meta.main) await main();

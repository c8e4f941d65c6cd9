/**
 * `deno task compare`: variants of a run over several seeds, and what their differences are worth.
 * @module
 */
import { dirname, join } from "node:path";
import { describeMachine } from "../../bench/machine.ts";
import { describeMachineText } from "../../bench/report.ts";
import { finetune } from "../../mod.ts";
import type { Grid } from "../compare/grid.ts";
import { formatComparison, htmlComparison, markdownReport, type Origin } from "../compare/report.ts";
import { compareRuns } from "../compare/result.ts";
import { type GridProgress, type PlannedRun, planRuns, runGrid, type Runner } from "../compare/run_grid.ts";
import { hasFailed, RunLog, type RunOutcome } from "../compare/run_log.ts";
import { usableCores } from "../core/cores.ts";
import { InputError } from "../core/errors.ts";
import { ensureFolder, pathKind, writeFileAtomic } from "../core/files.ts";
import { checkSettings } from "../finetune/check_settings.ts";
import type { FinetuneResult } from "../finetune/mod.ts";
import type { FinetuneSettings } from "../finetune/options.ts";
import { significant } from "../report/text_table.ts";
import { type Command, jsonOnStandardOutput, runCommand, writeJson } from "./command.ts";
import { compareCommand, type CompareFlags, gridOf, settingsOfFlags } from "./compare_flags.ts";
import { formatDuration } from "./progress.ts";
import packageJson from "../../deno.json" with { type: "json" };

/** Where and how the runs of a comparison are made. */
export interface RunPlace {
  /** Folder that the runs have theirs in. */
  readonly folder: string;
  readonly threads: number;
  /** Whether models stay when their run has ended. */
  readonly keep: boolean;
  readonly signal?: AbortSignal;
}

/** The settings of a run. Throws InputError for flags that finetune would refuse unseen. */
function settingsOfRun(
  { flags, variant, seed }: PlannedRun,
  { folder, threads }: RunPlace,
): FinetuneSettings {
  const out = join(folder, `${variant.replaceAll(/[^\w.]+/g, "-")}-seed-${seed}`);
  const settings = { ...settingsOfFlags(flags, variant), seed, threads, out, overwrite: true };
  try {
    checkSettings(settings);
  } catch (error) {
    if (error instanceof InputError) throw new InputError(`variant ${variant}: ${error.message}`);
    throw error;
  }
  return settings;
}

/** Makes runs by fine-tuning. */
export function finetuneRunner(place: RunPlace, run: typeof finetune = finetune): Runner {
  return async (planned) => {
    const settings = settingsOfRun(planned, place);
    try {
      return outcomeOf(await run(settings, { signal: place.signal }));
    } finally {
      if (!place.keep && await pathKind(settings.out)) await Deno.remove(settings.out, { recursive: true });
    }
  };
}

function outcomeOf(result: FinetuneResult): RunOutcome {
  const { evaluation, steps, seconds, threads, isa, sparsity } = result;
  if (!evaluation) throw new InputError("the run was not evaluated: wanted --eval");
  const { loss, metrics, primary } = evaluation;
  return { steps, seconds, threads, isa, sparsity: sparsity.overall, loss, metrics, primary };
}

async function run(command: Command): Promise<void> {
  const flags = command.opts<CompareFlags>();
  const { json, markdown, html, keep, jobs } = flags;
  const cores = usableCores().count;
  checkCount("--jobs", jobs);
  const threads = flags.threads ?? Math.max(1, Math.floor(cores / jobs));
  for (const [name, file] of Object.entries({ markdown, html })) await checkResultFile(`--${name}`, file);
  const grid = await gridOf(command);
  const out = flags.out ?? join("runs", "compare", grid.name);
  const runs = await planRuns(grid);
  const controller = new AbortController();
  const place: RunPlace = { folder: join(out, "runs"), threads, keep, signal: controller.signal };
  // What finetune would refuse ends the comparison before its first run, and not after an hour.
  for (const planned of runs) settingsOfRun(planned, place);
  const log = await RunLog.open(join(out, "runs.jsonl"));
  await ensureFolder(out);

  stopOnInterrupt(controller);
  console.error(describeGrid(grid, { jobs, threads, out }));
  const progress = (ended: GridProgress) => console.error(describeProgress(ended));
  await runGrid(runs, { log, runner: finetuneRunner(place), jobs, signal: controller.signal, progress });

  const result = compareRuns(grid, runs, log);
  if (!jsonOnStandardOutput(json)) console.log(`\n${formatComparison(result)}`);
  const origin = await originOf(command);
  const files = [[markdown, () => markdownReport(result, origin)], [
    html,
    () => htmlComparison(result, origin),
  ]] as const;
  for (const [path, content] of files) {
    if (path === undefined) continue;
    await writeFileAtomic(path, await content());
    console.error(`report: ${path}`);
  }
  const { machine, versions } = origin;
  await writeJson(json, { ...result, machine, versions });
}

function checkCount(name: string, value: number): void {
  if (!(Number.isSafeInteger(value) && value >= 1)) {
    throw new InputError(`${name} is ${value}: wanted a whole number of at least 1`);
  }
}

async function checkResultFile(name: string, path: string | undefined): Promise<void> {
  if (path === undefined) return;
  if (await pathKind(path) === "folder" || await pathKind(dirname(path)) !== "folder") {
    throw new InputError(`${name} is ${path}: wanted a file in a folder that exists`);
  }
}

/** The first Ctrl-C ends the runs under way, the second everything. */
function stopOnInterrupt(controller: AbortController): void {
  Deno.addSignalListener("SIGINT", () => {
    if (controller.signal.aborted) Deno.exit(1);
    console.error("stopping; once more stops at once");
    controller.abort();
  });
}

function describeGrid(
  { name, variants, seeds }: Grid,
  { jobs, threads, out }: { jobs: number; threads: number; out: string },
) {
  return `${name}: ${variants.length} variants, ${seeds.length} seed${
    seeds.length === 1 ? "" : "s"
  }, ${jobs} at a time, ` +
    `${threads} thread${threads === 1 ? "" : "s"} each; results in ${out}`;
}

/** `7/45  AdamW, seed 3: accuracy 0.812, loss 0.43, 12 s; 8 min 20 s left` */
export function describeProgress({ record, done, total, remainingSeconds }: GridProgress): string {
  const what = hasFailed(record)
    ? `failed: ${record.error}`
    : `${record.primary.name} ${significant(record.primary.value)}, loss ${significant(record.loss)}, ` +
      formatDuration(record.seconds);
  const left = done === total ? "" : `; ${formatDuration(remainingSeconds)} left`;
  return `${done}/${total}  ${record.variant}, seed ${record.seed}: ${what}${left}`;
}

async function originOf(command: Command): Promise<Origin> {
  return {
    args: Deno.args,
    machine: describeMachineText(await describeMachine(command.opts().isa)),
    versions: { lacuna: packageJson.version, deno: Deno.version.deno },
  };
}

if (import.meta.main) await runCommand(compareCommand(), run);

/**
 * `deno task plan`: the kernels chosen for a model and what each worker does, phase by phase.
 * @module
 */
import { openModel } from "../checkpoint/model_folder.ts";
import { describeLayers } from "../infer/describe_layers.ts";
import { sizeOfRun } from "../infer/runner.ts";
import { Session } from "../infer/session.ts";
import { userTuning } from "../infer/tuning_store.ts";
import { nativeCpu, selectMachine } from "../machines/mod.ts";
import { InlineExecutor } from "../plan/executor.ts";
import { describePlan } from "../plan/plan.ts";
import {
  type Command,
  jsonOnStandardOutput,
  makeCommand,
  noteFallback,
  parseNumber,
  runCommand,
  writeJson,
} from "./command.ts";
import { chosenModel } from "./last_model.ts";

/** The command with all its flags. */
export function planCommand(): Command {
  return makeCommand("plan", "Print how a model would be run.")
    .option("--model <dir|hub id>", "model folder (default: the last one fine-tuned here)")
    .option("--tokens <n>", "tokens, all texts together", parseNumber, 128)
    .option("--batch <n>", "texts", parseNumber, 1)
    .option("--threads <n>", "worker threads (default: one per usable core)", parseNumber)
    .option("--isa <name>", "instruction set (default: the fastest there is)")
    .option("--no-tune", "choose kernels by rule instead of measuring them at the first load");
}

async function run(command: Command): Promise<void> {
  const flags = command.opts();
  noteFallback(flags.isa);
  const machine = selectMachine(flags.isa);
  const session = await Session.open(await openModel(await chosenModel(flags.model)), {
    machine,
    threads: flags.threads,
    tuning: flags.tune ? userTuning() : undefined,
    // Nothing runs but what may have to be measured, so no worker is started.
    createExecutor: ({ machine, threads, arena }) =>
      Promise.resolve(new InlineExecutor(machine, threads, arena)),
  });
  try {
    const plan = session.plan(flags.tokens, flags.batch);
    if (!jsonOnStandardOutput(flags.json)) {
      console.log(
        `${session.isa}, ${session.threads} threads (${session.threadsReason}), ${
          (session.weightBytes / 2 ** 20).toFixed(2)
        } MiB of weights`,
      );
      const run = {
        columns: sizeOfRun(flags.tokens, flags.batch, { machine, workers: session.threads }).columns,
        tile: plan.target.tile,
        workers: plan.target.workers,
        caches: nativeCpu()?.caches ?? [],
      };
      for (const line of describeLayers(session.layers, session.structures, run)) console.log(`  ${line}`);
      console.log(describePlan(plan));
    }
    await writeJson(flags.json, {
      isa: session.isa,
      threads: session.threads,
      tile: plan.target.tile,
      barriers: plan.phases.length,
      layers: session.layers.map((layer) => {
        const structure = session.structures.get(layer.name);
        return structure
          ? { ...layer, panelInputs: structure.panelInputs, blockRows: structure.blockRows }
          : layer;
      }),
      phases: plan.phases.map(({ name, calls }) => ({
        name,
        calls: calls.map((share) => share.map(({ kernel, words }) => ({ kernel: kernel.key, words }))),
      })),
    });
  } finally {
    await session.dispose();
  }
}

if (import.meta.main) await runCommand(planCommand(), run);

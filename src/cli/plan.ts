/**
 * `deno task plan`: the kernels chosen for a model and what each worker does, phase by phase.
 * @module
 */
import { openModel } from "../checkpoint/model_folder.ts";
import { Session } from "../infer/session.ts";
import { selectMachine } from "../machines/mod.ts";
import { InlineExecutor } from "../plan/executor.ts";
import { describePlan } from "../plan/plan.ts";
import {
  type Command,
  jsonOnStandardOutput,
  makeCommand,
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
    .option("--isa <name>", "instruction set (default: the fastest there is)");
}

async function run(command: Command): Promise<void> {
  const flags = command.opts();
  const session = await Session.open(await openModel(await chosenModel(flags.model)), {
    machine: selectMachine(flags.isa),
    threads: flags.threads,
    // Nothing runs, so no worker is started.
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
      for (const layer of session.layers) {
        console.log(
          `  ${layer.name}  ${layer.rows} × ${layer.columns}  ${
            (layer.sparsity * 100).toFixed(1)
          } % zeros  ` +
            `${layer.kernel}  ${(layer.weightBytes / 1024).toFixed(0)} KiB  (${layer.reason})`,
        );
      }
      console.log(describePlan(plan));
    }
    await writeJson(flags.json, {
      isa: session.isa,
      threads: session.threads,
      layers: session.layers,
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

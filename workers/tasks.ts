/**
 * The tasks a worker can be given, by name. Their modules are loaded when first asked for: most workers need none.
 * @module
 */
import type { Task } from "../src/plan/executor.ts";

type AnyTask = Task<unknown, unknown>;

const modules: Readonly<Record<string, () => Promise<{ readonly task: unknown }>>> = {
  packMatrix: () => import("../src/infer/pack_task.ts"),
  pruneMatrix: () => import("../src/finetune/prune_task.ts"),
  compactMatrix: () => import("../src/finetune/compact_task.ts"),
  expandMatrix: () => import("../src/finetune/expand_task.ts"),
  moveWeights: () => import("../src/finetune/movement_task.ts"),
  fisherBlocks: () => import("../src/finetune/fisher_task.ts"),
  metaPasses: () => import("../src/finetune/meta/meta_task.ts"),
};

/** The task of that name. */
export async function loadTask(name: string): Promise<AnyTask> {
  if (!Object.hasOwn(modules, name)) throw new RangeError(`Cannot perform ${name}: there is no such task`);
  return (await modules[name]()).task as AnyTask;
}

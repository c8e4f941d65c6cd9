/**
 * The end of a run on the embedded reviews, pruning and all, on both devices: the same model comes out, to what rounding does.
 * Most of the run is the CPU's, for a CPU that plays a GPU takes ten times as long.
 */
import assert from "node:assert/strict";
import { cp } from "node:fs/promises";
import { finetune, Interrupted } from "../../mod.ts";
import { reviewSettings } from "./default_run.ts";
import { finetuneDefaults, type FinetuneSettings } from "./options.ts";
import { gpuTest } from "./tiny_gpu.ts";

gpuTest(
  "the embedded reviews train a model on a GPU that is as good as the CPU's, within a point",
  async () => {
    const folder = await Deno.makeTempDir({ prefix: "lacuna-" });
    const settings = (out: string, changes: Partial<FinetuneSettings> = {}): FinetuneSettings => ({
      ...finetuneDefaults,
      ...reviewSettings,
      ...{ epochs: 3, pruneBegin: 0.95, pruneEnd: 0.98, sparsity: 0.5, maximumEvalSamples: 500, threads: 2 },
      ...{ device: "cpu", out: `${folder}/${out}` },
      ...changes,
    });
    try {
      const controller = new AbortController();
      const begun = finetune(settings("cpu"), {
        signal: controller.signal,
        listener: { step: ({ completedSteps }) => completedSteps === 710 && controller.abort() },
      });
      await assert.rejects(begun, Interrupted);
      await cp(`${folder}/cpu`, `${folder}/gpu`, { recursive: true });
      const cpu = await finetune(settings("cpu", { resume: true }));
      const gpu = await finetune(settings("gpu", { resume: true, device: "webgpu" }));
      assert.deepEqual([gpu.steps, gpu.device], [750, "webgpu"]);
      assert.deepEqual(gpu.sparsity.overall, cpu.sparsity.overall);
      const [found, wanted] = [gpu.evaluation!.primary.value, cpu.evaluation!.primary.value];
      assert.ok(wanted > 0.85, `the CPU's accuracy is ${wanted}`);
      assert.ok(Math.abs(found - wanted) <= 0.01, `accuracy ${found}, wanted ${wanted}`);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
);

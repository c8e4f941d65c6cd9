/**
 * The embedded default's model and data on both devices, from random weights to the export, in fewer epochs: a whole run that trains
 * dense, prunes and recovers. For a CPU that plays the GPU that is work for minutes.
 */
import assert from "node:assert/strict";
import { finetune, type FinetuneResult } from "../../mod.ts";
import { reviewSettings } from "./default_run.ts";
import { finetuneDefaults } from "./options.ts";
import { gpuTest } from "./tiny_gpu.ts";

/** In five epochs of the default's eight the CPU has learned the reviews, so that what rounding does to a run decides little. */
const epochs = 5;

gpuTest(
  "the embedded reviews train a model on a GPU that is as good as the CPU's, within a point",
  async () => {
    const folder = await Deno.makeTempDir({ prefix: "lacuna-" });
    const train = (device: "cpu" | "webgpu"): Promise<FinetuneResult> =>
      finetune({
        ...finetuneDefaults,
        ...reviewSettings,
        ...{ epochs, threads: 2, device, out: `${folder}/${device}` },
      });
    try {
      const cpu = await train("cpu");
      const gpu = await train("webgpu");
      assert.equal(gpu.device, "webgpu");
      assert.deepEqual([gpu.steps, gpu.sparsity.overall], [cpu.steps, cpu.sparsity.overall]);
      assert.deepEqual(gpu.stages.map(({ name }) => name), ["dense", "pruning", "recovery"]);
      assert.ok(Math.abs(gpu.sparsity.overall - finetuneDefaults.sparsity) < 1e-3, `${gpu.sparsity.overall}`);
      const [found, wanted] = [gpu.evaluation!.primary.value, cpu.evaluation!.primary.value];
      // Half of the reviews are positive.
      assert.ok(wanted > 0.95, `the CPU's accuracy is ${wanted}`);
      assert.ok(found >= wanted - 0.01, `accuracy ${found}, wanted ${wanted}`);
      assert.ok(Math.abs(gpu.exported!.sparsity - gpu.sparsity.overall) < 1e-3, "zeros are lost or made");
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
);

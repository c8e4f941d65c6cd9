/** Whole runs in float16. */
import assert from "node:assert/strict";
import { finetune, Interrupted } from "../../mod.ts";
import { openSafetensors } from "../checkpoint/safetensors.ts";
import { initialLossScale } from "../kernels/loss_scale/reference.ts";
import { halvesTest } from "./tiny_gpu.ts";
import type { FinetuneSettings } from "./options.ts";
import { TinyFolder } from "./tiny_run.ts";

async function savedScale(out: string): Promise<unknown> {
  const { metadata } = await openSafetensors(`${out}/training/state.safetensors`);
  return JSON.parse(metadata.lossScale ?? "null");
}

/** Stops a run soon after a step, when its result is known; gives the step it came to. */
async function interruptAfter(settings: FinetuneSettings, step: number): Promise<number> {
  const controller = new AbortController();
  const listener = {
    step: ({ completedSteps }: { completedSteps: number }) => completedSteps >= step && controller.abort(),
  };
  try {
    await finetune(settings, { signal: controller.signal, listener });
  } catch (error) {
    if (error instanceof Interrupted) return Number(error.message.match(/^interrupted at step (\d+)/)![1]);
    throw error;
  }
  throw new Error(`the run was not interrupted after step ${step}`);
}

halvesTest(
  "finetune --precision fp16 is as good, says so, and goes on after an interrupt to the same bytes",
  async () => {
    await using folder = await TinyFolder.create();
    const whole = await finetune(folder.settings({ epochs: 2, out: folder.at("fp32") }));
    assert.equal(whole.precision, "fp32");
    assert.equal(await savedScale(folder.at("fp32")), null);

    const half = { device: "webgpu", precision: "fp16", epochs: 2 } as const;
    const said: string[] = [];
    const undisturbed = await finetune(folder.settings({ ...half, out: folder.at("fp16") }), {
      listener: { message: (text) => said.push(text) },
    });
    assert.match(said[0], /^device: webgpu \(as asked\) in fp16, /);
    assert.equal(undisturbed.precision, "fp16");
    assert.match(await Deno.readTextFile(undisturbed.report), /webgpu \([^)]*\)[^<]* in fp16, /);
    assert.deepEqual(undisturbed.sparsity.overall, whole.sparsity.overall);
    const [found, wanted] = [undisturbed.evaluation!.loss, whole.evaluation!.loss];
    assert.ok(Math.abs(found - wanted) < 0.02, `evaluation loss ${found}, wanted ${wanted}`);
    assert.deepEqual(await savedScale(folder.at("fp16")), { ...initialLossScale, goodSteps: 12 });

    const settings = folder.settings({ ...half, out: folder.at("stopped") });
    const stoppedAt = await interruptAfter(settings, 4);
    assert.ok(stoppedAt < 12);
    assert.deepEqual(await savedScale(settings.out), { ...initialLossScale, goodSteps: stoppedAt });
    await finetune({ ...settings, resume: true });
    assert.deepEqual(folder.resultOf(settings.out), folder.resultOf(folder.at("fp16")));
    assert.deepEqual(await savedScale(settings.out), { ...initialLossScale, goodSteps: 12 });
  },
);

halvesTest("a run in float16 goes on in float32 on the CPU, and says so", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ device: "webgpu", precision: "fp16" });
  await interruptAfter(settings, 4);
  const said: string[] = [];
  const resumed = await finetune({ ...settings, resume: true, device: "cpu", precision: "fp32" }, {
    listener: { message: (text) => said.push(text) },
  });
  assert.equal(resumed.steps, 24);
  const line =
    `the run began on webgpu in fp16: on ${resumed.isa} sums round differently, so its numbers will differ`;
  assert.ok(said.includes(line), said.join("\n"));
});

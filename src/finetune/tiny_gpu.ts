/**
 * Trainers of tiny models on a GPU, for tests. Where there is no adapter their tests are left out, and say why.
 * @module
 */
import { testGpu } from "../kernels/shader_conformance.ts";
import { chooseAdapter } from "../webgpu/adapter.ts";
import { openDeviceExecutor } from "../webgpu/device_executor.ts";
import { type TinyOptions, tinyTrainer } from "./tiny_trainer.ts";
import type { Trainer } from "./trainer.ts";
import type { TrainingModel } from "./training_model.ts";

const choice = await chooseAdapter({ allowSoftware: true });

/** Whether tests have a GPU, software or not. */
export const hasGpu = "adapter" in choice;

/** A test that wants a GPU. */
export function gpuTest(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, fn, ignore: !hasGpu });
}

// Where there is no GPU it says so, or throws where one is required.
const hasHalves = (await testGpu())?.target.f16 ?? false;

/** A test that wants a GPU with arithmetic in float16. */
export function halvesTest(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, fn, ignore: !hasHalves });
}

/** As `tinyTrainer`, on a GPU of this thread. */
export async function gpuTrainer<Example>(
  model: TrainingModel<Example>,
  options: TinyOptions<Example> = {},
): Promise<Trainer<Example>> {
  return await tinyTrainer(model, { ...options, gpu: await openDeviceExecutor({ allowSoftware: true }) });
}

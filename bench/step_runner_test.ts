import assert from "node:assert/strict";
import { parseBertConfig } from "../models/config.ts";
import { tinyConfigJson } from "../src/finetune/tiny_run.ts";
import { halvesTest } from "../src/finetune/tiny_gpu.ts";
import { openDeviceExecutor } from "../src/webgpu/device_executor.ts";
import { poolFactory } from "../workers/pool.ts";
import { StepRunner } from "./step_runner.ts";

halvesTest("StepRunner takes steps in the precision it is told, float32 else", async () => {
  const bytes: number[] = [];
  for (const precision of ["fp16", undefined] as const) {
    const { trainer } = await StepRunner.create({
      config: parseBertConfig(tinyConfigJson, "tiny"),
      pattern: "unstructured",
      batch: 2,
      tokens: 8,
      precision,
    }, {
      workers: 1,
      createExecutor: poolFactory(),
      gpu: await openDeviceExecutor({ allowSoftware: true }),
    });
    assert.equal(trainer.lossScale !== undefined, precision === "fp16");
    bytes.push(trainer.needs.activationBytes);
    await trainer.dispose();
  }
  assert.ok(bytes[0] < bytes[1], `${bytes}`);
});

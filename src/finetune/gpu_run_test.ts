/** Whole runs on a GPU, and from one device to the other. */
import assert from "node:assert/strict";
import { findLearningRate, finetune, type FinetuneResult, Interrupted } from "../../mod.ts";
import { WorkerDataReader } from "../../workers/data_reader.ts";
import { poolFactory } from "../../workers/pool.ts";
import { UnsupportedError } from "../core/errors.ts";
import { chooseAdapter } from "../webgpu/adapter.ts";
import { openDeviceExecutor } from "../webgpu/device_executor.ts";
import type { GpuExecutor } from "../webgpu/executor.ts";
import { finetune as finetuneWith, type FinetuneContext } from "./mod.ts";
import type { FinetuneSettings } from "./options.ts";
import { gpuTest } from "./tiny_gpu.ts";
import { metricsOf, refuses, TinyFolder, tinyRows } from "./tiny_run.ts";

/** Runs on both devices; the models must be as good, to what rounding does in some dozen steps. */
async function runsAlike(
  folder: TinyFolder,
  changes: Partial<FinetuneSettings>,
  tolerance: number,
): Promise<FinetuneResult> {
  const cpu = await finetune(folder.settings({ ...changes, out: folder.at("cpu") }));
  const gpu = await finetune(folder.settings({ ...changes, out: folder.at("gpu"), device: "webgpu" }));
  assert.deepEqual([cpu.device, gpu.device], ["cpu", "webgpu"]);
  assert.equal(gpu.steps, cpu.steps);
  assert.deepEqual(gpu.sparsity.overall, cpu.sparsity.overall);
  const [found, wanted] = [gpu.evaluation!, cpu.evaluation!];
  assert.ok(
    Math.abs(found.loss - wanted.loss) < tolerance,
    `evaluation loss ${found.loss}, wanted ${wanted.loss}`,
  );
  assert.deepEqual(
    metricsOf(folder.at("gpu")).map(({ step, sparsity }) => [step, sparsity]),
    metricsOf(folder.at("cpu")).map(({ step, sparsity }) => [step, sparsity]),
  );
  return gpu;
}

gpuTest("finetune --device webgpu prunes as the CPU does, and says on what", async () => {
  await using folder = await TinyFolder.create();
  const { gpu, exported, report, stages } = await runsAlike(folder, { sparsity: 0.5 }, 0.02);
  assert.ok(exported);
  assert.deepEqual(stages.map(({ name }) => name), ["dense", "pruning", "recovery"]);
  assert.ok(stages.every(({ seconds }) => seconds > 0));
  assert.ok((await Deno.readTextFile(report)).includes(`webgpu (${gpu})`));
});

gpuTest("oBERT prunes what a GPU trains", async () => {
  await using folder = await TinyFolder.create();
  const pruning = { pruningMethod: "obert", pruningOptions: { gradients: 8 }, pruneRefreshes: 2 } as const;
  await runsAlike(folder, { sparsity: 0.5, ...pruning }, 0.05);
});

gpuTest("MetaAdamW learns its factors while a GPU trains", async () => {
  await using folder = await TinyFolder.create();
  const meta = { optimizer: "metaadamw", metaOptions: { updateEvery: 4, refreshEvery: 4 } } as const;
  await runsAlike(folder, { sparsity: 0, ...meta }, 0.05);
});

gpuTest("a GPU learns from a teacher, of several batches a step, with layers that run again", async () => {
  await using folder = await TinyFolder.create();
  const teaching = { sparsity: 0.5, teacher: "dense", accumulation: 2 };
  await runsAlike(folder, { ...teaching, gradientCheckpointing: true }, 0.05);
});

gpuTest("a GPU learns a language", async () => {
  await using folder = await TinyFolder.create();
  await runsAlike(folder, { task: "masked-lm", sparsity: 0, epochs: 2 }, 0.05);
});

gpuTest("a GPU learns scores, from a teacher too", async () => {
  await using folder = await TinyFolder.create();
  const scores = tinyRows(96, 1).map(({ sentence, label }) => `${sentence}\t${label === "positive" ? 4 : 1}`);
  const train = await folder.write("scores.tsv", ["sentence\tscore", ...scores].join("\n"));
  await runsAlike(folder, { task: "regression", train, evaluation: train, teacher: "dense" }, 0.05);
});

gpuTest("a GPU learns to forecast a series", async () => {
  await using folder = await TinyFolder.create();
  const rows = Array.from({ length: 160 }, (_, hour) => {
    const date = new Date(Date.UTC(2016, 6, 1, hour)).toISOString().slice(0, 19).replace("T", " ");
    return `${date},${Math.sin(hour / 2).toFixed(4)},${Math.cos(hour / 3).toFixed(4)}`;
  });
  const train = await folder.write("tides.csv", ["date,tide,load", ...rows].join("\n") + "\n");
  const series = {
    task: "forecasting",
    init: undefined,
    evaluation: undefined,
    maximumLength: undefined,
    train,
  } as const;
  const windows = { inputLength: 8, horizon: 2, targetColumn: "all", epochs: 1, sparsity: 0.5 };
  await runsAlike(folder, { ...series, ...windows }, 0.02);
});

gpuTest("the learning-rate finder finds on a GPU what it finds on the CPU", async () => {
  await using folder = await TinyFolder.create();
  const search = (device: "cpu" | "webgpu") => findLearningRate(folder.settings({ device }));
  const [cpu, gpu] = [await search("cpu"), await search("webgpu")];
  for (const [index, { smoothed }] of gpu.points.slice(0, 60).entries()) {
    assert.ok(Math.abs(smoothed - cpu.points[index].smoothed) < 1e-3, `point ${index}: ${smoothed}`);
  }
  const ratio = gpu.suggested / cpu.suggested;
  assert.ok(ratio > 0.7 && ratio < 1.5, `${gpu.suggested}, wanted ${cpu.suggested}`);
});

gpuTest("a run goes from one device to the other, and says so", async () => {
  await using folder = await TinyFolder.create();
  const whole = await finetune(folder.settings({ out: folder.at("whole") }));
  for (const [first, second] of [["webgpu", "cpu"], ["cpu", "webgpu"]] as const) {
    const settings = folder.settings({ out: folder.at(first), saveSteps: 5 });
    const controller = new AbortController();
    await assert.rejects(
      finetune({ ...settings, device: first }, {
        signal: controller.signal,
        listener: { step: ({ completedSteps }) => completedSteps >= 12 && controller.abort() },
      }),
      (error) =>
        error instanceof Interrupted && /^interrupted at step 1\d of 24: saved in /.test(error.message),
    );
    const said: string[] = [];
    const compiled: boolean[] = [];
    const resumed = await finetune({ ...settings, device: second, resume: true }, {
      listener: {
        message: (text) => said.push(text),
        compiling: ({ shaders, totalShaders }) =>
          compiled.push(totalShaders > 10 && shaders === totalShaders),
      },
    });
    assert.equal(compiled.at(-1), second === "webgpu" ? true : undefined);
    const [began, goesOn] = first === "webgpu" ? ["webgpu", resumed.isa] : [resumed.isa, "webgpu"];
    assert.ok(
      said.includes(
        `the run began on ${began}: on ${goesOn} sums round differently, so its numbers will differ`,
      ),
      said.join("\n"),
    );
    assert.equal(resumed.device, second);
    assert.equal(resumed.steps, 24);
    assert.equal(resumed.sparsity.overall, whole.sparsity.overall);
    assert.ok(Math.abs(resumed.evaluation!.loss - whole.evaluation!.loss) < 0.05);
  }
});

/** A GPU of this thread that is lost, or full, when so many programs were submitted. */
async function gpuUpTo(submits: number, end: "lost" | "full"): Promise<GpuExecutor> {
  const gpu = await openDeviceExecutor({ allowSoftware: true });
  const { promise: lost, resolve } = Promise.withResolvers<string>();
  let left = submits;
  const reason = "the GPU was lost: pulled out";
  return new Proxy(gpu, {
    get(_, name: keyof GpuExecutor) {
      if (name === "lost") return lost;
      if (name === "submit" && left-- <= 0) {
        if (end === "full") return () => Promise.reject(new UnsupportedError("Cannot make buffers: full"));
        setTimeout(resolve, 5, reason);
        return () => Promise.reject(new Error(`Cannot run train: ${reason}`));
      }
      const value = gpu[name];
      return typeof value === "function" ? value.bind(gpu) : value;
    },
  });
}

const factories: FinetuneContext = {
  createExecutor: poolFactory(),
  createReader: () => new WorkerDataReader(),
};

for (
  const [end, reason] of [["lost", "the GPU was lost: pulled out"], [
    "full",
    "Cannot make buffers: full",
  ]] as const
) {
  gpuTest(`a run whose GPU is ${end} says in one line where it goes on, and does`, async () => {
    await using folder = await TinyFolder.create();
    const settings = folder.settings({ device: "webgpu", saveSteps: 4 });
    await assert.rejects(
      finetuneWith(settings, { ...factories, createGpu: () => gpuUpTo(10, end) }),
      (error) => {
        const { message } = error as Error;
        assert.ok(message.startsWith(`${reason}, at step `), message);
        assert.match(
          message,
          /at step \d+ of 24; saved is step \d: go on with --resume, or with --resume --device cpu$/,
        );
        return true;
      },
    );
    assert.equal((await finetune({ ...settings, resume: true, device: "cpu" })).steps, 24);
  });
}

gpuTest("finetune refuses movement pruning on a GPU before anything is written", async () => {
  await using folder = await TinyFolder.create();
  await refuses(
    folder,
    { device: "webgpu", pruningMethod: "movement" },
    "--device webgpu cannot train this run: movement pruning trains its scores on the CPU",
  );
});

Deno.test("finetune --device auto opens no GPU where a CPU would play it, and says why", async () => {
  const choice = await chooseAdapter({ allowSoftware: false });
  if ("adapter" in choice) return console.log("not tested: this host has a GPU");
  await using folder = await TinyFolder.create();
  const said: string[] = [];
  await finetuneWith(folder.settings({ device: "auto", epochs: 1 }), {
    ...factories,
    createGpu: () => assert.fail("a GPU is opened"),
    listener: { message: (text) => said.push(text) },
  });
  assert.ok(said[0].startsWith(`device: cpu (auto: ${choice.reason}), `), said[0]);
});

import assert from "node:assert/strict";
import { presetConfig } from "../../models/presets.ts";
import type { TrainRow } from "../train.ts";
import { parseJunit, runTestFiles, shaderTestFiles } from "./kernel_tests.ts";
import { bestBesideChosen, squareProduct, type SweepRow, trainingProducts } from "./matmul_sweep.ts";
import { parityCases, parityFaults, parityLimits, type ParityRow } from "./parity.ts";
import { overheadTarget, productTarget, shareOutside } from "./targets.ts";
import { faultsOf, formatCheck, type GpuCheckResult, runPart } from "./summary.ts";
import { operationOfShader } from "./timing_executor.ts";

Deno.test("parseJunit counts tests, not steps, and names the steps that failed", () => {
  const xml = `<testsuites>
    <testcase name="good" classname="a" time="0.1" line="1" col="6">
    </testcase>
    <testcase name="bad &lt;one&gt;" classname="a" time="0.1" line="1" col="6">
        <failure message="1 test step failed">1 test step failed.</failure>
    </testcase>
    <testcase name="left out" classname="a" time="0.1" line="1" col="6">
        <skipped/>
    </testcase>
    <testcase name="bad &lt;one&gt; &gt; inner &amp;amp;" classname="a" time="0.1" line="1" col="6">
        <failure message="Uncaught Error: no
&quot;way&quot;">Error: no</failure>
    </testcase></testsuites>`;
  assert.deepEqual(parseJunit(xml), {
    passed: 1,
    failed: 1,
    ignored: 1,
    failures: [{ name: "bad <one> > inner &amp;", message: "Error: no" }],
  });
});

Deno.test("shaderTestFiles finds operations with shaders and what runs them, and no others", async () => {
  const files = await shaderTestFiles();
  for (
    const file of [
      "src/kernels/gelu/gelu_test.ts",
      "src/webgpu/device_executor_test.ts",
      "workers/gpu_test.ts",
    ]
  ) {
    assert.ok(files.includes(file), `${file} is among ${files}`);
  }
  for (const file of ["src/kernels/conformance_test.ts", "src/kernels/sparse_matmul/sparse_matmul_test.ts"]) {
    assert.ok(!files.includes(file), file);
  }
});

Deno.test("runTestFiles: a file that does not load is a failure that says why", async () => {
  const { passed, failed, files: [file] } = await runTestFiles(["bench/gpu/no_such_test.ts"]);
  assert.deepEqual([passed, failed], [0, 1]);
  assert.match(file.failures[0].message, /^exit code 1, /);
});

Deno.test("trainingProducts: all three products of a layer have as many operations", () => {
  const products = trainingProducts(40, [[12, 20]]);
  assert.deepEqual(products.map(({ name }) => name), [
    "12×20 forward",
    "12×20 input gradient",
    "12×20 weight gradient",
  ]);
  for (const { product: { rows, columns, depth } } of products) {
    assert.equal(rows * columns * depth, 40 * 12 * 20);
  }
  const { product } = squareProduct(8);
  assert.deepEqual([product.rows, product.columns, product.depth], [8, 8, 8]);
});

const sweepRow: SweepRow = {
  product: "p",
  precision: "fp32",
  configuration: "slow",
  shares: 1,
  chosen: true,
  best_ms: 2,
  median_ms: 3,
  tflops: 1,
  share_of_peak: 0.25,
};

Deno.test("bestBesideChosen: the fastest of each product and precision, and how much slower the choice is", () => {
  const fast: SweepRow = {
    ...sweepRow,
    configuration: "fast",
    chosen: false,
    median_ms: 2,
    share_of_peak: 0.375,
  };
  const half: SweepRow = { ...sweepRow, precision: "fp16", chosen: false };
  const [full, other] = bestBesideChosen([sweepRow, fast, half]);
  assert.deepEqual(full, { best: fast, chosen: sweepRow, slowdown: 1.5 });
  assert.deepEqual(other, { best: half, chosen: undefined, slowdown: undefined });
});

Deno.test("operationOfShader names shaders without types and constants, and products by what they are for", () => {
  const names = {
    "matmul_fp32_128x128x16_8x8_double_nt_v4v4v4_bias": "matmul",
    "matmul_fp32_direct_32x32_4x4_nn_v1v4v4_tail": "matmul_input_gradient",
    "matmul_fp16_64x64x16_4x4_double_tn_v4v4v4": "matmul_weight_gradient",
    "matmul_sum_partials_vec4f": "matmul_sum_partials",
    "layer_norm_384_epsilon1e-12_residual_training": "layer_norm",
    "attention_gradient_kv_f32x4_chunks2_dropout": "attention_gradient_kv",
    "update_adamw_masked_f32x4": "update_adamw_masked",
    "scatter_sort": "scatter_sort",
  };
  for (const [key, name] of Object.entries(names)) assert.equal(operationOfShader(key), name);
});

const parityRow: ParityRow = {
  case: "tiny",
  precision: "fp32",
  steps: 50,
  first_loss: 0.7,
  last_loss: 0.1,
  loss_difference: 1e-7,
  norm_difference: 1e-6,
  gradient_difference: 1e-6,
  weight_difference: 1e-5,
  weight_mean_difference: 1e-6,
  weight_difference_of_way: 1e-5,
};

Deno.test("parityFaults names what is beyond its limit, and NaN", () => {
  assert.deepEqual(parityFaults(parityRow), []);
  const limit = parityLimits.fp32.loss_difference!;
  assert.deepEqual(parityFaults({ ...parityRow, loss_difference: limit }), []);
  assert.deepEqual(parityFaults({ ...parityRow, loss_difference: NaN }), [
    `tiny in fp32: loss_difference is NaN, wanted at most ${limit}`,
  ]);
  assert.equal(parityFaults({ ...parityRow, gradient_difference: 1, weight_difference_of_way: 1 }).length, 2);
  const half: ParityRow = { ...parityRow, precision: "fp16" };
  const off = { loss_difference: 2e-3, weight_difference_of_way: 0.1 };
  assert.deepEqual(parityFaults({ ...half, ...off }), [], "float16 rounds more");
  assert.equal(parityFaults({ ...half, norm_difference: 6e-3, weight_mean_difference: 2e-4 }).length, 2);
  assert.equal(parityCases[0].steps, 50);
  assert.equal(parityCases[1].config.hiddenSize, presetConfig("minilm-l6").hiddenSize);
});

Deno.test("runPart: what is thrown and what hangs is a fault in one line", async () => {
  const good = await runPart(() => Promise.resolve(7), () => [], 10);
  assert.deepEqual([good.ok, good.faults, good.result], [true, [], 7]);
  const bad = await runPart(() => Promise.resolve(7), (n) => [`${n} is odd`], 10);
  assert.deepEqual([bad.ok, bad.faults, bad.result], [false, ["7 is odd"], 7]);
  const thrown = await runPart(() => Promise.reject(new RangeError("a\nb")), () => [], 10);
  assert.deepEqual([thrown.ok, thrown.faults, thrown.result], [false, ["RangeError: a; b"], undefined]);
  const late = await runPart(() => new Promise(() => {}), () => [], 0.01);
  assert.deepEqual(late.faults, ["Error: it was not done in 0.01 s"]);
});

const step: TrainRow = {
  engine: "lacuna",
  device: "webgpu",
  precision: "fp32",
  model: "bert-base",
  weights: "dense",
  kernels: "dense",
  pattern: "dense",
  sparsity: 0,
  batch: 32,
  tokens: 128,
  threads: 1,
  step_ms: { p50: 125, p95: 130, p99: 131, mean: 126, std: 2 },
  tokens_per_second: 32768,
  examples_per_second: 256,
  gflops: 20000,
  dense_equivalent_gflops: 20000,
  share_of_peak: 0.4,
  arena_mb: 5000,
  gpu_ms: 100,
  encode_ms: 2.5,
  operations: [{ operation: "matmul", calls: 74, ms: 30, share: 0.3 }],
};

const check: GpuCheckResult = {
  date: "2026-01-01T00:00:00.000Z",
  deno: "2.9.6",
  quick: false,
  machine: { cpu: "A CPU", isa: "avx512", cores: 16, caches: [], peak_gflops: 100 },
  gpu: {
    name: "A GPU",
    vendor: "V",
    driver: "1.2",
    isSoftware: false,
    features: ["shader-f16"],
    limits: { maxBufferSize: 4096 },
    nvidia_smi: { name: "A GPU", driver_version: "580" },
  },
  parts: {
    kernels: {
      ok: false,
      seconds: 60,
      faults: ["gelu_test.ts: gelu: off by 1"],
      result: { passed: 9, failed: 1, ignored: 0, files: [] },
    },
    parity: { ok: true, seconds: 5, faults: [], result: [parityRow] },
    peaks: {
      ok: true,
      seconds: 1,
      faults: [],
      result: {
        fp32_tflops: 50,
        copy_gb_s: 2000,
        buffer_copy_gb_s: 2100,
        copy_bytes: 4096,
        clock: "timestamps",
        clock_ratio: 0.99,
      },
    },
    matmul: { ok: true, seconds: 9, faults: [], result: { rows: [sweepRow], failures: [] } },
    train: { ok: false, seconds: 9, faults: Array(30).fill("Error: out of memory"), result: [step] },
  },
};

Deno.test("formatCheck says of each part how it went, with its numbers and its faults", () => {
  const text = formatCheck(check);
  for (
    const wanted of [
      "A GPU",
      "driver_version 580",
      "maxBufferSize 4096",
      "kernel tests: FAILED (60.0 s)",
      "! gelu_test.ts: gelu: off by 1",
      "9 passed, 1 failed",
      "training on CPU and GPU: ok",
      "0.700 → 0.100",
      "GPU with CPU",
      "60.0 % of the measured peak or more: MISSED (0 of 1): p 25.0 %",
      "less than 10.0 % of a step outside the GPU: MISSED (0 of 1): bert-base 32×128 in fp32 20.0 %",
      "fp32 50.0 TFLOP/s\n",
      "2000 GB/s",
      "25.0 %",
      "! and 10 more",
      "32×128",
      "20.0 %",
    ]
  ) assert.ok(text.includes(wanted), `${wanted} in:\n${text}`);
  const broken = formatCheck({
    ...check,
    parts: { train: { ok: false, seconds: 1, faults: ["Error: lost"] } },
  });
  assert.match(broken, /fine-tuning steps: FAILED \(1\.00 s\)\n {2}! Error: lost$/);
  assert.ok(!broken.includes("kernel tests"), "a part that was not asked for is not told of");
});

Deno.test("targets: of the chosen fp32 products, and of all steps that have a time on the GPU", () => {
  const good: SweepRow = { ...sweepRow, product: "q", share_of_peak: 0.6 };
  const others: SweepRow[] = [{ ...sweepRow, precision: "fp16" }, { ...sweepRow, chosen: false }];
  assert.match(productTarget([good, ...others])[0], /: met \(1 of 1\): q 60\.0 %$/);
  assert.match(productTarget([good, sweepRow])[0], /: MISSED \(1 of 2\): q 60\.0 %, p 25\.0 %$/);
  assert.deepEqual(productTarget(others), []);
  const close: TrainRow = { ...step, precision: "fp16", gpu_ms: 120 };
  assert.match(overheadTarget([close])[0], /: met \(1 of 1\): bert-base 32×128 in fp16 4\.00 %$/);
  assert.match(overheadTarget([{ ...close, gpu_ms: 112 }])[0], /: MISSED \(0 of 1\)/);
  assert.deepEqual(overheadTarget([{ ...close, gpu_ms: undefined }]), []);
  assert.equal(shareOutside({ ...close, gpu_ms: 130 }), 0, "a step that waits for nothing");
});

Deno.test("faults of a sweep name the product and the way that failed", () => {
  const failure = { product: "p", configuration: "c", shares: 2, message: "wrong" };
  assert.deepEqual(faultsOf.matmul({ rows: [], failures: [failure] }), ["p, c, 2 shares: wrong"]);
  assert.equal(faultsOf.train([]).length, 1);
  const peaks = check.parts.peaks!.result!;
  assert.deepEqual(faultsOf.peaks(peaks), []);
  assert.equal(faultsOf.peaks({ ...peaks, clock_ratio: 0.025 }).length, 1);
});

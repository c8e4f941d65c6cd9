import assert from "node:assert/strict";
import { UnsupportedError } from "../core/errors.ts";
import { chooseAdapter, describeAdapter, openGpu } from "./adapter.ts";
import { openDawn } from "./dawn.ts";

/** An adapter that says who it is and gives no device. */
function madeUpAdapter(info: object, features: readonly string[] = []): GPUAdapter {
  return {
    info: { description: "", device: "", vendor: "", architecture: "", isFallbackAdapter: false, ...info },
    features: new Set(features),
    limits: {},
    requestDevice: () => Promise.reject(new TypeError("out of devices")),
  } as unknown as GPUAdapter;
}

const gpuWith = (adapter: GPUAdapter | null) =>
  ({ requestAdapter: () => Promise.resolve(adapter) }) as unknown as GPU;

const h100 = madeUpAdapter({ description: "NVIDIA H100 PCIe", vendor: "4318" });
const llvmpipe = madeUpAdapter({ description: "llvmpipe (LLVM 15.0.6, 256 bits)" });

Deno.test("chooseAdapter takes a GPU, and a CPU that plays one where that is allowed", async () => {
  assert.deepEqual(await chooseAdapter({ allowSoftware: false }, gpuWith(h100)), { adapter: h100 });
  assert.deepEqual(await chooseAdapter({ allowSoftware: true }, gpuWith(llvmpipe)), { adapter: llvmpipe });
});

Deno.test("chooseAdapter says why there is no adapter to use", async () => {
  const reason = async (gpu: GPU | null) => await chooseAdapter({ allowSoftware: false }, gpu);
  assert.deepEqual(await reason(null), { reason: "this runtime has no WebGPU" });
  assert.deepEqual(await reason(gpuWith(null)), { reason: "WebGPU finds no adapter" });
  assert.deepEqual(await reason(gpuWith(llvmpipe)), {
    reason: "the only adapter, llvmpipe (LLVM 15.0.6, 256 bits), is a CPU that plays one",
  });
  const failing = { requestAdapter: () => Promise.reject(new Error("no\n  driver")) } as unknown as GPU;
  assert.deepEqual(await reason(failing), { reason: "WebGPU fails to look for one: no driver" });
});

Deno.test("describeAdapter knows software by what it calls itself, or is told", () => {
  assert.equal(describeAdapter(h100).isSoftware, false);
  assert.equal(describeAdapter(llvmpipe).isSoftware, true);
  const swiftShader = madeUpAdapter({ device: "SwiftShader Device (Subzero)" });
  assert.deepEqual(describeAdapter(swiftShader), {
    name: "SwiftShader Device (Subzero)",
    vendor: "",
    driver: "",
    isSoftware: true,
  });
  assert.equal(describeAdapter(madeUpAdapter({ isFallbackAdapter: true })).isSoftware, true);
  assert.equal(describeAdapter(madeUpAdapter({})).name, "unnamed adapter");
});

Deno.test("openGpu names the adapter that gives no device", async () => {
  await assert.rejects(
    openGpu(h100),
    (error) =>
      error instanceof UnsupportedError &&
      error.message === "the GPU NVIDIA H100 PCIe gives no device: out of devices",
  );
});

const [f16, subgroups, matrix] = ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"];
const matrixOf = (M: number, N: number, K: number, componentType = "f16", resultComponentType = "f32") => ({
  M,
  N,
  K,
  componentType,
  resultComponentType,
});

Deno.test("describeAdapter tells which matrices an adapter of Dawn's multiplies, or why none", () => {
  const info = {
    device: "h100",
    description: "NVIDIA: 570.1",
    vendor: "nvidia",
    architecture: "hopper",
    subgroupMinSize: 32,
    subgroupMaxSize: 32,
    subgroupMatrixConfigs: [matrixOf(16, 16, 16, "f16", "f16"), matrixOf(16, 16, 16), matrixOf(16, 8, 16)],
  };
  const matrices = (changes: object, features = [f16, subgroups, matrix]) =>
    describeAdapter(madeUpAdapter({ ...info, ...changes }, features)).matrices;
  const { name, driver } = describeAdapter(madeUpAdapter(info));
  assert.deepEqual([name, driver], ["h100", "NVIDIA: 570.1"]);
  assert.equal(matrices({}), "subgroup matrices of 16×16×16, 16×8×16");
  assert.equal(matrices({}, [subgroups]), `no subgroup matrices: the adapter has no ${matrix}, no ${f16}`);
  assert.equal(matrices({ subgroupMinSize: 8 }), "no subgroup matrices: subgroups have 8 to 32 lanes");
  assert.equal(
    matrices({ subgroupMatrixConfigs: info.subgroupMatrixConfigs.slice(0, 1) }),
    "no subgroup matrices: none has float16 operands and float32 sums",
  );
});

Deno.test("the null backend of Dawn opens with all its features, and without matrices", async () => {
  const { adapter, device, target } = await openDawn();
  assert.equal(adapter.matrices, "no subgroup matrices: subgroups have 4 to 128 lanes");
  assert.deepEqual([target.subgroupSize, target.subgroupMatrices, target.f16], [undefined, [], true]);
  assert.ok(device.features.has(matrix as GPUFeatureName));
  device.destroy();
});

import assert from "node:assert/strict";
import { UnsupportedError } from "../core/errors.ts";
import { chooseAdapter, describeAdapter, openGpu } from "./adapter.ts";

/** An adapter that says who it is and gives no device. */
function madeUpAdapter(info: Partial<GPUAdapterInfo>): GPUAdapter {
  return {
    info: { description: "", device: "", vendor: "", architecture: "", isFallbackAdapter: false, ...info },
    features: new Set(),
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

/** A whole run on Dawn's WebGPU, and what is said where there is none. */
import assert from "node:assert/strict";
import { finetune } from "../../mod.ts";
import { chooseAdapter } from "../webgpu/adapter.ts";
import { metricsOf, refuses, TinyFolder } from "./tiny_run.ts";

const choice = await chooseAdapter({ provider: "dawn", allowSoftware: true });
const skip = "reason" in choice ? choice.reason : undefined;

Deno.test({
  name: `finetune --device dawn prunes as the CPU does, and says on what${skip ? ` (skipped: ${skip})` : ""}`,
  ignore: skip !== undefined,
  async fn() {
    await using folder = await TinyFolder.create();
    const said: string[] = [];
    const listener = { message: (text: string) => said.push(text) };
    // A short run: SwiftShader takes half a minute to compile its shaders.
    const changes = { sparsity: 0.5, epochs: 1 };
    const cpu = await finetune(folder.settings({ ...changes, out: folder.at("cpu") }));
    const dawn = await finetune(
      folder.settings({ ...changes, out: folder.at("dawn"), device: "dawn" }),
      { listener },
    );
    assert.equal(dawn.device, "dawn");
    assert.match(said[0], /^device: dawn \(as asked\), .+subgroup matrices/);
    assert.deepEqual(dawn.sparsity.overall, cpu.sparsity.overall);
    assert.ok(Math.abs(dawn.evaluation!.loss - cpu.evaluation!.loss) < 0.02);
    const steps = (out: string) => metricsOf(folder.at(out)).map(({ step, sparsity }) => [step, sparsity]);
    assert.deepEqual(steps("dawn"), steps("cpu"));
  },
});

Deno.test({
  name: "finetune --device dawn is refused in one line where there is none, before anything is written",
  ignore: skip === undefined,
  async fn() {
    await using folder = await TinyFolder.create();
    await refuses(folder, { device: "dawn" }, `--device dawn cannot train this run: ${skip}`);
  },
});

import assert from "node:assert/strict";
import { dirname } from "node:path";
import process from "node:process";
import { InputError } from "../../src/core/errors.ts";
import { ensureFolder } from "../../src/core/files.ts";
import { TinyFolder } from "../../src/finetune/tiny_run.ts";
import { carriedConfig, pruneDawn } from "./carry.ts";

Deno.test("carriedConfig has packages of the project's versions, and refuses a project without them", async () => {
  const { imports } = JSON.parse(await Deno.readTextFile(new URL("../../deno.json", import.meta.url)));
  const config = carriedConfig(imports);
  for (const name of ["comlink", "zod", "fast-check", "webgpu"]) {
    assert.equal(config.imports[name], imports[name]);
  }
  assert.throws(() => carriedConfig({}), InputError);
});

Deno.test("pruneDawn keeps the build for this system alone, and refuses a package without one", async () => {
  await using folder = await TinyFolder.create();
  const here = `${process.platform}-${process.arch}`;
  const build = (system: string) => `npm/registry/webgpu/1.2.3/dist/${system}/dawn.node`;
  for (const system of ["plan9-x64", here]) {
    await ensureFolder(dirname(folder.at(build(system))));
    await folder.write(build(system), system);
  }
  await pruneDawn(folder.path);
  const builds = await Array.fromAsync(Deno.readDir(folder.at("npm/registry/webgpu/1.2.3/dist")));
  assert.deepEqual(builds.map(({ name }) => name), [here]);
  assert.equal(await Deno.readTextFile(folder.at(build(here))), here);
  await Deno.rename(
    folder.at(`npm/registry/webgpu/1.2.3/dist/${here}`),
    folder.at("npm/registry/webgpu/1.2.3/dist/vms"),
  );
  await assert.rejects(pruneDawn(folder.path), {
    name: "InputError",
    message: `the package webgpu has builds for vms: wanted ${here}`,
  });
});

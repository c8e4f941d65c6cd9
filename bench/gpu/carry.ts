/**
 * Packs what `gpu_check.ts` needs besides the project, for a machine without internet: Deno itself and three packages.
 *
 *     deno run -A bench/gpu/carry.ts .gpu      here, on the same kind of processor
 *     sh .gpu/run.sh --json gpu_check.json     there, in the project's folder
 *
 * Deno installs all packages of a configuration when it needs one of them, and those of the project are a gigabyte. So the check
 * runs with a configuration of its own; tests that want more are told as left out.
 * @module
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { InputError } from "../../src/core/errors.ts";
import { ensureFolder, readJson, writeFileAtomic } from "../../src/core/files.ts";
import { leftOut } from "./kernel_tests.ts";

/** What the check and nearly all tests of shaders import. */
const packages = ["comlink", "fast-check", "zod"] as const;

const root = fileURLToPath(new URL("../..", import.meta.url));

/** The configuration: these packages in the versions of the project. Throws `InputError` for one that the project lacks. */
export function carriedConfig(imports: Readonly<Record<string, string>>) {
  const missing = packages.find((name) => imports[name] === undefined);
  if (missing !== undefined) {
    throw new InputError(`deno.json imports no ${missing}: wanted it, for tests on a GPU`);
  }
  // Dawn checks shaders without a GPU: that can be done anywhere.
  const dawn = `export function create() { throw new Error("${leftOut} Dawn, which needs no GPU"); }`;
  const carried: Record<string, string> = {
    ...Object.fromEntries(packages.map((name) => [name, imports[name]])),
    webgpu: `data:text/javascript,${encodeURIComponent(dawn)}`,
  };
  return { nodeModulesDir: "none", imports: carried };
}

/** Unpacks, once, and runs the check with what was unpacked. */
const runScript = `#!/bin/sh
set -e
here=$(cd "$(dirname "$0")" && pwd)
home=\${TMPDIR:-/tmp}/lacuna-gpu-check
if [ ! -x "$home/deno" ]; then mkdir -p "$home" && tar -xzf "$here/carry.tgz" -C "$home"; fi
export DENO_DIR="$home/cache" DENO_WEBGPU_BACKEND="\${DENO_WEBGPU_BACKEND:-vulkan}" DENO_NO_UPDATE_CHECK=1
exec "$home/deno" run -A --config "$home/deno.json" bench/gpu_check.ts --config "$home/deno.json" "$@"
`;

async function run(command: string, args: string[], env: Record<string, string> = {}): Promise<void> {
  const { success, stderr } = await new Deno.Command(command, { args, env, cwd: root, stderr: "piped" })
    .output();
  if (!success) throw new Error(`${command} ${args[0]} failed: ${new TextDecoder().decode(stderr).trim()}`);
}

/** Writes `carry.tgz` and `run.sh` into a folder. */
export async function pack(folder: string): Promise<void> {
  const { imports } = await readJson(join(root, "deno.json")) as { imports: Record<string, string> };
  await ensureFolder(folder);
  const scratch = await Deno.makeTempDir({ prefix: "lacuna-carry-" });
  try {
    const config = join(scratch, "deno.json");
    await writeFileAtomic(config, JSON.stringify(carriedConfig(imports), null, 2));
    // `fast-check` is imported by tests alone.
    const modules = ["bench/gpu_check.ts", imports["fast-check"]];
    await run(Deno.execPath(), ["cache", "--config", config, ...modules], {
      DENO_DIR: join(scratch, "cache"),
    });
    await Deno.copyFile(Deno.execPath(), join(scratch, "deno"));
    await Deno.chmod(join(scratch, "deno"), 0o755);
    await run("tar", ["-czf", join(await Deno.realPath(folder), "carry.tgz"), "-C", scratch, "."]);
    await writeFileAtomic(join(folder, "run.sh"), runScript);
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
}

if (import.meta.main) {
  const [folder, ...rest] = Deno.args;
  if (folder === undefined || rest.length > 0) {
    console.error("usage: deno run -A bench/gpu/carry.ts FOLDER");
    Deno.exit(2);
  }
  await pack(folder);
}

/**
 * Packs what `gpu_check.ts` needs besides the project, for a machine without internet: Deno itself and four packages, Dawn among
 * them.
 *
 *     deno run -A bench/gpu/carry.ts .gpu      here, on the same kind of processor
 *     sh .gpu/run.sh --json gpu_check.json     there, in the project's folder; with --provider dawn too
 *
 * Deno installs all packages of a configuration when it needs one of them, and those of the project are a gigabyte. So the check
 * runs with a configuration of its own; tests that want more are told as left out.
 * @module
 */
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import process from "node:process";
import { InputError } from "../../src/core/errors.ts";
import { ensureFolder, readJson, writeFileAtomic } from "../../src/core/files.ts";
import { significant } from "../../src/report/text_table.ts";

/** What the check and nearly all tests of shaders import. */
const packages = ["comlink", "fast-check", "webgpu", "zod"] as const;

const root = fileURLToPath(new URL("../..", import.meta.url));

/** The configuration: these packages in the versions of the project. Throws `InputError` for one that the project lacks. */
export function carriedConfig(imports: Readonly<Record<string, string>>) {
  const missing = packages.find((name) => imports[name] === undefined);
  if (missing !== undefined) {
    throw new InputError(`deno.json imports no ${missing}: wanted it, for tests on a GPU`);
  }
  const carried = Object.fromEntries(packages.map((name) => [name, imports[name]]));
  return { nodeModulesDir: "none", imports: carried, allowScripts: { deny: ["npm:webgpu"] } };
}

/** Removes Dawn's builds for other systems than this one from a cache. Throws `InputError` where there is none for this one. */
export async function pruneDawn(cache: string): Promise<void> {
  const system = `${process.platform}-${process.arch}`;
  const walk = async (folder: string) =>
    (await Array.fromAsync(Deno.readDir(folder))).filter(({ isDirectory }) => isDirectory)
      .map(({ name }) => join(folder, name));
  const builds: string[] = [];
  for (const registry of await walk(join(cache, "npm"))) {
    for (const version of await walk(join(registry, "webgpu"))) {
      builds.push(...await walk(join(version, "dist")));
    }
  }
  if (!builds.some((build) => basename(build) === system)) {
    throw new InputError(
      `the package webgpu has builds for ${builds.map((build) => basename(build))}: wanted ${system}`,
    );
  }
  for (const build of builds) {
    if (basename(build) !== system) await Deno.remove(build, { recursive: true });
  }
}

/** Unpacks, once for each pack, and runs the check with what was unpacked. */
const runScript = `#!/bin/sh
set -e
here=$(cd "$(dirname "$0")" && pwd)
home=\${TMPDIR:-/tmp}/lacuna-gpu-check
if [ ! -e "$home/unpacked" ] || [ "$here/carry.tgz" -nt "$home/unpacked" ]; then
  rm -rf "$home"
  mkdir -p "$home"
  tar -xzf "$here/carry.tgz" -C "$home"
  touch "$home/unpacked"
fi
export DENO_DIR="$home/cache" DENO_WEBGPU_BACKEND="\${DENO_WEBGPU_BACKEND:-vulkan}" DENO_NO_UPDATE_CHECK=1
exec "$home/deno" run -A --config "$home/deno.json" bench/gpu_check.ts --config "$home/deno.json" "$@"
`;

async function run(command: string, args: string[], env: Record<string, string> = {}): Promise<void> {
  const { success, stderr } = await new Deno.Command(command, { args, env, cwd: root, stderr: "piped" })
    .output();
  if (!success) throw new Error(`${command} ${args[0]} failed: ${new TextDecoder().decode(stderr).trim()}`);
}

/** Writes `carry.tgz` and `run.sh` into a folder. Resolves to the bytes of the first. */
export async function pack(folder: string): Promise<number> {
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
    await pruneDawn(join(scratch, "cache"));
    await Deno.copyFile(Deno.execPath(), join(scratch, "deno"));
    await Deno.chmod(join(scratch, "deno"), 0o755);
    const packed = join(await Deno.realPath(folder), "carry.tgz");
    await run("tar", ["-czf", packed, "-C", scratch, "."]);
    await writeFileAtomic(join(folder, "run.sh"), runScript);
    return (await Deno.stat(packed)).size;
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
  console.log(`${folder}: ${significant(await pack(folder) / 1e6)} MB`);
}

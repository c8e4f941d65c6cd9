/** Imports between folders are those that ARCHITECTURE.md allows. */
import assert from "node:assert/strict";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Folders that the files of a folder may import from, besides their own. Type imports count too. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  "src/core": [],
  "src/graph": ["src/core", "src/kernels"],
  "src/assemblers": ["src/core", "src/kernels"],
  "src/kernels": ["src/core", "src/graph", "src/assemblers"],
  "src/machines": ["src/core", "src/assemblers", "src/kernels"],
  "src/webgpu": ["src/core", "src/graph", "src/kernels", "src/plan"],
  "src/plan": ["src/core", "src/graph", "src/kernels", "src/machines"],
  "src/pruning": ["src/core"],
  "src/report": ["src/core"],
  "src/compare": ["src/core", "src/report"],
  "src/recipes": ["src/core", "src/pruning"],
  "src/checkpoint": ["src/core", "models"],
  "src/data": ["src/core", "src/checkpoint"],
  "src/reviews": ["src/core", "src/data"],
  "src/export": ["src/core", "src/checkpoint", "src/pruning", "models"],
};

/** Folders that the files of a folder must never import from. */
const forbidden: Readonly<Record<string, readonly string[]>> = {
  "src/infer": ["src/finetune", "src/export", "src/cli", "workers", "bench"],
  "src/evaluate": ["src/finetune", "src/export", "src/cli", "workers", "bench"],
  "src/finetune": ["src/infer", "src/cli", "workers", "bench"],
  "src/cli": ["workers"],
  "models": ["src/finetune", "src/infer", "src/cli", "workers", "bench"],
  "workers": ["src/finetune", "src/infer", "src/export", "src/cli", "models", "bench"],
};

/** Files beside the product that test or time it: they run kernels and commands, so they may import anything. */
const support = [
  "conformance.ts",
  "shader_conformance.ts",
  "run_operation.ts",
  "product_checks.ts",
  "timing.ts",
  "tiny_run.ts",
  "start_task.ts",
];

const isProduct = (path: string) =>
  path.endsWith(".ts") && !path.endsWith("_test.ts") && !path.endsWith("_bench.ts") &&
  !support.some((name) => path.endsWith(`/${name}`));

function* sourceFiles(folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(join(root, folder))) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* sourceFiles(path);
    else if (isProduct(path)) yield path;
  }
}

/** `src/kernels` for `src/kernels/gelu/operation.ts`, `models` for `models/bert.ts`. */
function folderOf(path: string): string {
  const parts = path.split(/[\\/]/);
  return parts[0] === "src" ? parts.slice(0, 2).join("/") : parts[0];
}

function importsOf(path: string): string[] {
  const text = Deno.readTextFileSync(join(root, path));
  return Array.from(
    text.matchAll(/(?:from|import\()\s*"(\.[^"]+)"/g),
    ([, target]) => relative(root, join(root, dirname(path), target)),
  );
}

for (const folder of new Set([...Object.keys(allowed), ...Object.keys(forbidden)])) {
  Deno.test(`${folder} imports only what the architecture lets it`, () => {
    const wrong: string[] = [];
    let files = 0;
    for (const path of sourceFiles(folder)) {
      files++;
      for (const target of importsOf(path)) {
        const from = folderOf(target);
        if (from === folder) continue;
        // The one list of what workers can be asked for beside kernels; each module is loaded when it is.
        if (path === "workers/tasks.ts" && target.endsWith("_task.ts")) continue;
        // A teacher is a model that answers, and answering is what a session does: nothing else of infer is trained with.
        if (path === "src/finetune/teacher_model.ts" && target === "src/infer/session.ts") continue;
        const isAllowed = allowed[folder]?.includes(from) ?? !forbidden[folder].includes(from);
        if (!isAllowed) wrong.push(`${path} imports ${target}`);
      }
    }
    assert.ok(files > 0, `${folder} holds no file`);
    assert.deepEqual(wrong, []);
  });
}

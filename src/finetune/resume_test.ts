/** Stopped at any moment, politely or not, or by a full disk: a resumed run comes to the same bytes. */
import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import { finetune, InputError, Interrupted } from "../../mod.ts";
import { runTask, startTask } from "../cli/start_task.ts";
import { exists } from "../core/files.ts";
import type { FinetuneSettings } from "./options.ts";
import { TinyFolder } from "./tiny_run.ts";

/** Hashes of everything a run is for: all files but the training state, which also holds seconds. */
function resultOf(folder: TinyFolder, out: string): [name: string, hash: string][] {
  return [...folder.snapshot(out)].filter(([name]) => !name.startsWith("training"));
}

/** Runs until `step` is done, then interrupts. Gives the steps done. */
async function interruptAt(settings: FinetuneSettings, step: number): Promise<void> {
  const controller = new AbortController();
  await assert.rejects(
    finetune(settings, {
      signal: controller.signal,
      listener: { step: ({ completedSteps }) => completedSteps >= step && controller.abort() },
    }),
    (error) => error instanceof Interrupted && error.message.startsWith(`interrupted at step ${step} of 24`),
  );
}

/** A run of 24 steps with dropout, pruning and a best model, and what it comes to when nothing stops it. */
async function undisturbed(folder: TinyFolder): Promise<[name: string, hash: string][]> {
  const { out } = await finetune(folder.settings({ out: folder.at("undisturbed") }));
  const result = resultOf(folder, out);
  assert.ok(result.length > 6, "config, weights, tokenizer, and the same again exported");
  return result;
}

Deno.test("finetune interrupted at random steps and resumed writes the same bytes as a run left alone", async () => {
  await using folder = await TinyFolder.create();
  const expected = await undisturbed(folder);
  const stops = fc.uniqueArray(fc.integer({ min: 1, max: 23 }), { minLength: 1, maxLength: 4 })
    .map((steps) => steps.sort((a, b) => a - b));
  let runs = 0;
  await fc.assert(
    fc.asyncProperty(stops, fc.constantFrom(1, 2), async (steps, threads) => {
      const settings = folder.settings({ out: folder.at(`stopped${runs++}`), threads });
      for (const [index, step] of steps.entries()) {
        await interruptAt({ ...settings, resume: index > 0 }, step);
        assert.ok(!await exists(join(settings.out, "config.json")), "no model before the end");
      }
      const result = await finetune({ ...settings, resume: true });
      assert.equal(result.steps, 24);
      assert.deepEqual(resultOf(folder, settings.out), expected);
    }),
    { numRuns: 3 },
  );
});

Deno.test("finetune resumed after its end writes the same model again", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings();
  const first = await finetune(settings);
  const expected = resultOf(folder, settings.out);
  const again = await finetune({ ...settings, resume: true });
  assert.deepEqual(resultOf(folder, settings.out), expected);
  assert.deepEqual(again.evaluation, first.evaluation);
  assert.deepEqual(again.denseEvaluation, first.denseEvaluation);
});

/** The flags of the command for the settings of the tiny run. */
function flagsOf(folder: TinyFolder): string[] {
  const { init, train, evaluation } = folder.settings();
  const files = ["--init", init!, "--train", train!, "--eval", evaluation!];
  return [...files, "--max-length", "24", "--batch-size", "16", "--learning-rate", "1e-2", "--threads", "2"];
}

Deno.test("finetune killed at random moments resumes to the same bytes as a run left alone", async () => {
  await using folder = await TinyFolder.create();
  const epochs = 40;
  const begin = performance.now();
  const { out } = await finetune(folder.settings({ out: folder.at("undisturbed"), epochs }));
  const durationMs = performance.now() - begin;
  const expected = resultOf(folder, out);

  const run = [...flagsOf(folder), "--epochs", String(epochs), "--save-steps", "3", "--out", "killed"];
  let kills = 0;
  for (let sitting = 0; sitting < 4; sitting++) {
    const child = startTask("finetune", sitting > 0 ? [...run, "--resume"] : run, { cwd: folder.path });
    // Steps and saves are going on once progress is printed; the moment after it is left to chance.
    const stderr = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let chunk = await stderr.read(); !chunk.done; chunk = await stderr.read()) {
      text += chunk.value;
      if (/^step /m.test(text)) break;
    }
    await new Promise((resolve) => setTimeout(resolve, Math.random() * durationMs / 5));
    try {
      child.kill("SIGKILL");
    } catch {
      // It was faster than the kill.
    }
    const { signal, code } = await child.status;
    await Promise.all([stderr.cancel(), child.stdout.cancel()]);
    if (signal === "SIGKILL") kills++;
    else assert.equal(code, 0, text);
  }
  assert.ok(kills >= 2, `only ${kills} of 4 kills came in time`);
  const { code, errors } = await runTask("finetune", [...run, "--resume"], { cwd: folder.path });
  assert.equal(code, 0, errors.join("\n"));
  assert.deepEqual(
    resultOf(folder, folder.at("killed")).filter(([name]) => !/(^|\/)\..*\.tmp$/.test(name)),
    expected,
  );
});

Deno.test({
  name: "finetune on a disk that fills up says so, and goes on to the same bytes when there is room again",
  async fn() {
    await using folder = await TinyFolder.create();
    const expected = await undisturbed(folder);
    const disk = folder.at("disk");
    await Deno.mkdir(disk);
    const { success, stderr } = await new Deno.Command("mount", {
      args: ["-t", "tmpfs", "-o", "size=1m", "tmpfs", disk],
    }).output().catch((error) => ({ success: false, stderr: new TextEncoder().encode(String(error)) }));
    if (!success) {
      console.log(`skipped: no small disk can be made here: ${new TextDecoder().decode(stderr).trim()}`);
      return;
    }
    try {
      const settings = folder.settings({ out: join(disk, "out"), saveSteps: 1 });
      await interruptAt(settings, 3);
      const filler = join(disk, "filler");
      let failures = 0;
      // Each time there is a little more room, so that the disk is full at another file.
      for (let roomKiB = 4; roomKiB < 500; roomKiB += 48) {
        const before = folder.snapshot(settings.out);
        await fillDisk(filler, roomKiB * 1024);
        try {
          await finetune({ ...settings, resume: true });
        } catch (error) {
          assert.ok(error instanceof InputError, `${error}`);
          assert.match(error.message, /^Cannot (write|make) [^\n]*: no space left on the disk$/);
          failures++;
          const after = folder.snapshot(settings.out);
          for (const name of after.keys()) assert.doesNotMatch(name, /(^|\/)\./, "no temporary file is left");
          for (const name of before.keys()) assert.ok(after.has(name), `${name} is still there`);
        }
      }
      assert.ok(failures >= 2, `the disk was full ${failures} times only`);
      await Deno.remove(filler);
      await finetune({ ...settings, resume: true });
      assert.deepEqual(resultOf(folder, settings.out), expected);
    } finally {
      await new Deno.Command("umount", { args: [disk] }).output();
    }
  },
});

/** Fills the disk of `path` but for `roomBytes`. */
async function fillDisk(path: string, roomBytes: number): Promise<void> {
  await Deno.remove(path).catch(() => {});
  using file = await Deno.create(path);
  const block = new Uint8Array(4096);
  let written = 0;
  try {
    while (true) written += await file.write(block);
  } catch {
    await file.truncate(Math.max(0, written - roomBytes));
  }
}

Deno.test({
  name: "finetune whose writes fail half-way ends with one line and keeps the state it had",
  ignore: Deno.build.os === "windows", // It takes a shell that limits the size of files.
  async fn() {
    await using folder = await TinyFolder.create();
    await interruptAt(folder.settings({ isa: "wasm" }), 3);
    const before = folder.snapshot(folder.at("out"));
    // Blocks of 512 or 1024 bytes, by shell: either way less than the state has. WebAssembly, as native code takes a
    // file, too.
    const launcher = ["sh", "-c", `trap '' XFSZ; ulimit -f 32; exec "$@"`, "sh"];
    const run = [...flagsOf(folder), "--epochs", "4", "--out", folder.at("out"), "--resume", "--isa", "wasm"];
    const { code, errors } = await runTask("finetune", run, { cwd: folder.path, launcher });
    assert.equal(code, 2, errors.join("\n"));
    assert.match(
      errors.at(-1)!,
      /^lacuna finetune: Cannot write .*\.safetensors: (the file is larger than this system allows|File too large)$/,
    );
    assert.deepEqual(folder.snapshot(folder.at("out")), before);
  },
});

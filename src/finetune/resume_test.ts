/** Stopped at any moment, politely or not, or by a full disk: a resumed run comes to the same bytes. */
import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import { finetune, InputError } from "../../mod.ts";
import { runTask, startTask } from "../cli/start_task.ts";
import { errorMessage } from "../core/errors.ts";
import { exists } from "../core/files.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import { interruptAt, TinyFolder } from "./tiny_run.ts";

/** A run of 24 steps with dropout, pruning and a best model, and what it comes to when nothing stops it. */
async function undisturbed(folder: TinyFolder): Promise<ReadonlyMap<string, string>> {
  const { out } = await finetune(folder.settings({ out: folder.at("undisturbed") }));
  const result = folder.resultOf(out);
  assert.ok(result.size > 6, "config, weights, tokenizer, and the same again exported");
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
      assert.deepEqual(folder.resultOf(settings.out), expected);
    }),
    { numRuns: 3 },
  );
});

Deno.test("finetune resumed after its end writes the same model again", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings();
  const first = await finetune(settings);
  const expected = folder.resultOf(settings.out);
  const again = await finetune({ ...settings, resume: true });
  assert.deepEqual(folder.resultOf(settings.out), expected);
  assert.deepEqual(again.evaluation, first.evaluation);
  assert.deepEqual(again.denseEvaluation, first.denseEvaluation);
});

/** The flags of the command for the settings of the tiny run. */
function flagsOf(folder: TinyFolder): string[] {
  const { init, train, evaluation } = folder.settings();
  const files = ["--init", init!, "--train", train!, "--eval", evaluation!];
  return [...files, "--max-length", "24", "--batch-size", "16", "--learning-rate", "1e-2", "--threads", "2"];
}

/** The seed of a test that tries random moments; LACUNA_TEST_SEED repeats a failure as far as timing allows. */
function printedSeed(): number {
  const seed = Number(Deno.env.get("LACUNA_TEST_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0]);
  console.log(`seed ${seed}`);
  return seed;
}

/** Names of the parts of files in a folder of the training state; empty before there is a folder. */
function unfinishedFiles(folder: string): string[] {
  try {
    return Array.from(Deno.readDirSync(folder), ({ name }) => name).filter((name) => name.endsWith(".tmp"));
  } catch {
    return [];
  }
}

/** When a kill falls: after a time, or with the first save that begins after it. */
interface Moment {
  readonly afterMs: number;
  readonly inSave: boolean;
}

/** Starts the command and kills it at a moment. It may end before. */
async function killAt(
  { afterMs, inSave }: Moment,
  args: readonly string[],
  folder: TinyFolder,
): Promise<"ended" | "killed" | "killed in a save"> {
  const training = folder.at("killed", "training");
  const child = startTask("finetune", args, { cwd: folder.path });
  const output = Promise.all([new Response(child.stderr).text(), child.stdout.cancel()]);
  let isRunning = true;
  const ended = child.status.finally(() => isRunning = false);
  const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  await Promise.race([pause(afterMs), ended]);
  // What earlier kills left does not count.
  const before = new Set(unfinishedFiles(training));
  const isSaving = () => unfinishedFiles(training).some((name) => !before.has(name));
  while (inSave && isRunning && !isSaving()) await pause(0);
  if (isRunning) child.kill("SIGKILL");
  const { signal, code } = await ended;
  const [text] = await output;
  if (signal === "SIGKILL") return isSaving() ? "killed in a save" : "killed";
  assert.equal(code, 0, text);
  return "ended";
}

Deno.test("finetune killed twenty times, also while it saves, ends with the bytes of a run left alone", async () => {
  await using folder = await TinyFolder.create();
  const random = new RandomStream(randomKey(printedSeed(), "kills"));
  const epochs = 20;
  const { out } = await finetune(folder.settings({ out: folder.at("undisturbed"), epochs }));
  const expected = folder.resultOf(out);
  const run = [...flagsOf(folder), "--epochs", `${epochs}`, "--save-steps", "1", "--out", "killed"];
  const training = folder.at("killed", "training");
  const begin = performance.now();
  const whole = await runTask("finetune", [...run.slice(0, -1), "whole"], { cwd: folder.path });
  assert.equal(whole.code, 0, whole.errors.join("\n"));
  const durationMs = performance.now() - begin;

  const resume = async () => await exists(join(training, "state.safetensors")) ? ["--resume"] : [];
  let [kills, cutSaves] = [0, 0];
  // Most kills that wait for a save cut it short; should none of twenty, a few more are tried.
  while (kills < 20 || cutSaves === 0 && kills < 40) {
    // Within three quarters of a run's time, so that it takes a few sittings to get through, of which some are cut short
    // while they start, and some while they write the model.
    const moment = { afterMs: durationMs * random.uniform() * 0.75, inSave: random.below(2) === 0 };
    const end = await killAt(moment, [...run, ...await resume()], folder);
    if (end === "ended") {
      // Through in spite of all: one proof more, and the next run begins anew.
      assert.deepEqual(folder.resultOf(folder.at("killed")), expected);
      await Deno.remove(folder.at("killed"), { recursive: true });
    } else kills++;
    if (end === "killed in a save") cutSaves++;
  }
  assert.ok(cutSaves > 0, "no kill fell into a save");
  const { code, errors } = await runTask("finetune", [...run, ...await resume()], { cwd: folder.path });
  assert.equal(code, 0, errors.join("\n"));
  assert.deepEqual(folder.resultOf(folder.at("killed")), expected);
  assert.deepEqual(unfinishedFiles(training), []);
});

Deno.test({
  name: "finetune on a disk that fills up says so, and goes on to the same bytes when there is room again",
  async fn() {
    await using folder = await TinyFolder.create();
    const expected = await undisturbed(folder);
    const disk = folder.at("disk");
    await Deno.mkdir(disk);
    const refusal = await system("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk);
    if (refusal !== undefined) {
      console.log(`skipped: no small disk can be made here: ${refusal}`);
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
      assert.deepEqual(folder.resultOf(settings.out), expected);
    } finally {
      await system("umount", disk);
    }
  },
});

Deno.test({
  name: "finetune in a folder that may not be written says so, and goes on when it may be again",
  ignore: Deno.build.os === "windows", // Folders there have no such permission.
  async fn() {
    await using folder = await TinyFolder.create();
    const expected = await undisturbed(folder);
    const disk = folder.at("disk");
    await Deno.mkdir(disk);
    // Root may write where permissions forbid it, but not on a disk that is read-only.
    const isRoot = Deno.uid() === 0;
    const refusal = isRoot ? await system("mount", "-t", "tmpfs", "tmpfs", disk) : undefined;
    if (refusal !== undefined) {
      console.log(`skipped: root may write anywhere, and no disk can be mounted here: ${refusal}`);
      return;
    }
    const settings = folder.settings({ out: join(disk, "out"), saveSteps: 1 });
    const allowWrites = async (allowed: boolean) => {
      const failure = isRoot
        ? await system("mount", "-o", `remount,${allowed ? "rw" : "ro"}`, disk)
        : await system("chmod", "-R", allowed ? "u+w" : "u-w", disk);
      assert.equal(failure, undefined);
    };
    try {
      await interruptAt(settings, 3);
      const before = folder.snapshot(disk);
      await allowWrites(false);
      const refused = (action: string) => (error: unknown) => {
        assert.ok(error instanceof InputError, `${error}`);
        const reason = "the file system is read-only|permission denied";
        assert.match(error.message, new RegExp(`^Cannot ${action} [^\\n]*: (${reason})$`));
        return true;
      };
      let steps = 0;
      const listener = { step: () => steps++ };
      await assert.rejects(finetune({ ...settings, resume: true }, { listener }), refused("write"));
      assert.equal(steps, 1, "the first save ends it");
      await assert.rejects(finetune({ ...settings, out: join(disk, "new") }, { listener }), refused("make"));
      assert.equal(steps, 1, "a new run does not begin");
      assert.deepEqual(folder.snapshot(disk), before);
      await allowWrites(true);
      await finetune({ ...settings, resume: true });
      assert.deepEqual(folder.resultOf(settings.out), expected);
    } finally {
      if (isRoot) await system("umount", disk);
      else await allowWrites(true);
    }
  },
});

/** Runs a program of the system. Gives its complaint, or undefined when it had none. */
async function system(program: string, ...args: readonly string[]): Promise<string | undefined> {
  try {
    const { success, stderr } = await new Deno.Command(program, { args: [...args] }).output();
    return success ? undefined : errorMessage(new TextDecoder().decode(stderr));
  } catch (error) {
    return errorMessage(error);
  }
}

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
    const training = folder.at("out", "training");
    const stateOf = () => folder.snapshot(training).get("state.safetensors");
    const before = stateOf();
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
    assert.equal(stateOf(), before);
    assert.deepEqual(unfinishedFiles(training), []);
  },
});

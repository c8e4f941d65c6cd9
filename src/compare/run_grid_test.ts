/** Running a grid with made-up runs: order, jobs, failures, going on after an interrupt. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { InputError, Interrupted } from "../core/errors.ts";
import { type Grid, makeGrid } from "./grid.ts";
import { type GridProgress, type PlannedRun, planRuns, runGrid } from "./run_grid.ts";
import { RunLog, type RunOutcome } from "./run_log.ts";

const knownFlags = new Map(
  ["train", "model", "recipe", "optimizer", "learning-rate"].map((name) => [name, { takesValue: true }]),
);

function gridOf(base: Readonly<Record<string, string>> = {}, seeds = 2): Grid {
  const variants = { a: {}, b: { optimizer: "sgd" }, twin: { optimizer: "sgd" } };
  return makeGrid({ name: "grid", base, seeds, baseline: "a", variants }, { source: "grid", knownFlags });
}

/** An outcome that tells runs apart. */
function outcome(run: PlannedRun, changes: Partial<RunOutcome> = {}): RunOutcome {
  const value = run.seed + (run.variant === "a" ? 0 : 0.5);
  return {
    steps: 10,
    seconds: 2,
    threads: 1,
    isa: "avx2",
    sparsity: 0,
    loss: 1,
    metrics: { accuracy: value, spearman: NaN },
    primary: { name: "accuracy", value, higherIsBetter: true },
    ...changes,
  };
}

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "lacuna-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("all variants of a seed come before the next seed; variants with the same flags share a run", () =>
  withFolder(async (folder) => {
    const runs = await planRuns(gridOf());
    const path = join(folder, "runs.jsonl");
    const log = await RunLog.open(path);
    const made: string[] = [];
    const heard: GridProgress[] = [];
    await runGrid(runs, {
      log,
      jobs: 1,
      runner: (run) => {
        made.push(`${run.flags.optimizer ?? "adamw"} ${run.seed}`);
        return Promise.resolve(outcome(run));
      },
      progress: (progress) => heard.push(progress),
    });
    assert.deepEqual(made, ["adamw 1", "sgd 1", "adamw 2", "sgd 2"]);
    assert.deepEqual(heard.map(({ done, total }) => [done, total]), [[1, 4], [2, 4], [3, 4], [4, 4]]);
    assert.equal(heard[3].remainingSeconds, 0);
    for (const run of runs) assert.equal(log.get(run.key)?.seed, run.seed);

    // From the disk again: nothing is left to do. A metric without a value is not kept.
    const again = await RunLog.open(path);
    await runGrid(runs, { log: again, jobs: 2, runner: () => assert.fail("made a run again") });
    const record = again.get(runs[0].key)!;
    assert.ok("metrics" in record);
    assert.deepEqual(record.metrics, { accuracy: 1 });
  }));

Deno.test("as many runs as there are jobs are under way at once, and every line reaches the disk", () =>
  withFolder(async (folder) => {
    const runs = await planRuns(gridOf({}, 6));
    const path = join(folder, "runs.jsonl");
    let [running, most] = [0, 0];
    await runGrid(runs, {
      log: await RunLog.open(path),
      jobs: 3,
      runner: async (run) => {
        most = Math.max(most, ++running);
        await new Promise((resolve) => setTimeout(resolve, 1));
        running--;
        return outcome(run);
      },
    });
    assert.equal(most, 3);
    const keys = Deno.readTextFileSync(path).trim().split("\n").map((line) => JSON.parse(line).key);
    assert.deepEqual(keys.toSorted(), [...new Set(runs.map(({ key }) => key))].sort());
  }));

Deno.test("an interrupt leaves what is done, and the next sitting goes on from there", () =>
  withFolder(async (folder) => {
    const runs = await planRuns(gridOf());
    const path = join(folder, "runs.jsonl");
    const controller = new AbortController();
    let made = 0;
    const runner = (run: PlannedRun) => {
      if (++made === 3) {
        controller.abort();
        return Promise.reject(new Interrupted("stopped"));
      }
      return Promise.resolve(outcome(run));
    };
    const first = runGrid(runs, { log: await RunLog.open(path), jobs: 1, runner, signal: controller.signal });
    await assert.rejects(first, {
      name: "Interrupted",
      message: "interrupted after 2 of 4 runs: the same command goes on from there",
    });
    const rest: string[] = [];
    await runGrid(runs, {
      log: await RunLog.open(path),
      jobs: 1,
      runner: (run) => {
        rest.push(`${run.variant} ${run.seed}`);
        return Promise.resolve(outcome(run));
      },
    });
    assert.deepEqual(rest.map((name) => name.split(" ")[1]), ["2", "2"]);
  }));

Deno.test("a run that fails is logged with its line; after bad input it is made again, after anything else not", () =>
  withFolder(async (folder) => {
    const runs = await planRuns(gridOf());
    const path = join(folder, "runs.jsonl");
    const errors = [
      new Error("gradients are not finite\nat step 4"),
      new InputError("Cannot write out: no space left on the disk"),
    ];
    await runGrid(runs, {
      log: await RunLog.open(path),
      jobs: 1,
      runner: (run) => {
        if (run.seed === 2) return Promise.reject(errors[run.variant === "a" ? 0 : 1]);
        const infinite = { name: "mse", value: 1, higherIsBetter: false };
        return Promise.resolve(
          outcome(run, run.variant === "a" ? {} : { loss: Infinity, primary: infinite }),
        );
      },
    });
    const log = await RunLog.open(path);
    const failure = (variant: string, seed: number) => {
      const record = log.get(runs.find((run) => run.variant === variant && run.seed === seed)!.key)!;
      return "error" in record ? [record.error, record.isInput] : undefined;
    };
    assert.equal(failure("a", 1), undefined);
    assert.deepEqual(failure("b", 1), ["the evaluation's loss is Infinity", false]);
    assert.deepEqual(failure("a", 2), ["gradients are not finite at step 4", false]);
    assert.deepEqual(failure("b", 2), ["Cannot write out: no space left on the disk", true]);

    const again: string[] = [];
    await runGrid(runs, {
      log,
      jobs: 1,
      runner: (run) => {
        again.push(`${run.flags.optimizer} ${run.seed}`);
        return Promise.resolve(outcome(run));
      },
    });
    assert.deepEqual(again, ["sgd 2"]);
    assert.equal(failure("b", 2), undefined);
  }));

Deno.test("a run is known by flags, seed and content of its files, wherever they lie", () =>
  withFolder(async (folder) => {
    const keyOf = async (base: Record<string, string>, seed = 0) =>
      (await planRuns(gridOf(base)))[3 * seed].key;
    const write = async (name: string, content: string) => {
      await Deno.writeTextFile(join(folder, name), content);
      return join(folder, name);
    };
    const [train, copy] = [await write("train.tsv", "one"), await write("copy.tsv", "one")];
    const key = await keyOf({ train });
    assert.equal(await keyOf({ train: copy }), key);
    assert.notEqual(await keyOf({ train }, 1), key);
    assert.notEqual(await keyOf({ train, optimizer: "adam" }), key);
    await write("train.tsv", "two");
    assert.notEqual(await keyOf({ train }), key);

    // A model is a folder, or a name of the hub.
    await Deno.mkdir(join(folder, "model"));
    const model = join(folder, "model");
    await write("model/config.json", "{}");
    const small = await keyOf({ model });
    await write("model/config.json", "{ }");
    assert.notEqual(await keyOf({ model }), small);
    assert.notEqual(await keyOf({ model: "owner/name" }), await keyOf({ model: "owner/other" }));

    await assert.rejects(
      keyOf({ train: join(folder, "none.tsv") }),
      /^InputError: --train is .*none.tsv: there is no such file$/,
    );
  }));

Deno.test("a log that was tampered with is refused with its line", () =>
  withFolder(async (folder) => {
    const path = join(folder, "runs.jsonl");
    for (const line of ['{"key":"a"}', "[]", '{"key":"a","variant":"b","seed":1,"steps":"many"}']) {
      await Deno.writeTextFile(path, `${line}\n`);
      await assert.rejects(RunLog.open(path), /^InputError: .*runs\.jsonl, line 1 is .*: wanted /);
    }
  }));

import assert from "node:assert/strict";
import { join } from "node:path";
import { InputError } from "./errors.ts";
import {
  checkOutputFolder,
  type Disk,
  type FileContent,
  localDisk,
  pathKind,
  readJson,
  readText,
  removeLeftovers,
  writeFileAtomic,
  writeFolderAtomic,
} from "./files.ts";

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Everything in a folder: path → content. */
async function snapshot(folder: string, prefix = ""): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = join(folder, name);
    if (isDirectory) {
      found[`${prefix}${name}/`] = "";
      Object.assign(found, await snapshot(path, `${prefix}${name}/`));
    } else found[prefix + name] = await Deno.readTextFile(path);
  }
  return found;
}

/** The error Deno throws on a full disk. */
const diskFull = () => Object.assign(new Error("No space left on device (os error 28)"), { code: "ENOSPC" });

/**
 * A disk that fails at call number `failAt`, and, when `lasting`, at every later call that needs space. Taking
 * things back (remove, and rename to a name that just became free) needs none and keeps working, as on a full disk.
 */
class FailingDisk implements Disk {
  calls = 0;

  constructor(readonly failAt: number, readonly lasting: boolean) {}

  makeFolder(path: string): Promise<void> {
    return this.#try(() => localDisk.makeFolder(path));
  }

  async create(path: string) {
    const file = await this.#try(() => localDisk.create(path));
    return {
      // One byte at a time, so that a failure can fall between two pieces of a file.
      write: (bytes: Uint8Array) => this.#try(() => file.write(bytes.subarray(0, 1))),
      sync: () => this.#try(() => file.sync()),
      close: () => file.close(),
    };
  }

  rename(from: string, to: string): Promise<void> {
    return this.#try(() => localDisk.rename(from, to), false);
  }

  remove(path: string): Promise<void> {
    return localDisk.remove(path);
  }

  syncFolder(path: string): Promise<void> {
    return this.#try(() => localDisk.syncFolder(path));
  }

  #try<T>(call: () => Promise<T>, needsSpace = true): Promise<T> {
    const number = this.calls++;
    const fails = number === this.failAt || (this.lasting && needsSpace && number > this.failAt);
    return fails ? Promise.reject(diskFull()) : call();
  }
}

/** Runs `write` with a failure at every call in turn, until it gets through. Returns the number of failures. */
async function failEverywhere(
  lasting: boolean,
  write: (disk: Disk) => Promise<void>,
  afterFailure: (error: unknown, failAt: number) => Promise<void>,
): Promise<number> {
  for (let failAt = 0;; failAt++) {
    const disk = new FailingDisk(failAt, lasting);
    try {
      await write(disk);
    } catch (error) {
      await afterFailure(error, failAt);
      continue;
    }
    assert.ok(disk.calls <= failAt, "it got through although a call failed");
    return failAt;
  }
}

const isDiskFull = /^Cannot (write|make|replace) [^\n]+: no space left on the disk$/;

for (const lasting of [false, true]) {
  const kind = lasting ? "a lasting" : "one";

  Deno.test(`writeFileAtomic keeps the old file through ${kind} failure at every disk call`, async () => {
    await withFolder(async (folder) => {
      const path = join(folder, "state.bin");
      await Deno.writeTextFile(path, "old");
      const failures = await failEverywhere(
        lasting,
        (disk) => writeFileAtomic(path, "newer", disk),
        async (error, failAt) => {
          assert.ok(error instanceof InputError);
          assert.match(error.message, isDiskFull);
          const found = await snapshot(folder);
          // The last call only makes the rename durable: the new file is in place by then.
          const renamed = failAt === 8;
          assert.deepEqual(found, { "state.bin": renamed ? "newer" : "old" }, `failure at call ${failAt}`);
          if (renamed) await Deno.writeTextFile(path, "old");
        },
      );
      // create, five bytes, sync, rename, sync of the folder
      assert.equal(failures, 9);
      assert.deepEqual(await snapshot(folder), { "state.bin": "newer" });
    });
  });

  Deno.test(`writeFolderAtomic keeps the old model through ${kind} failure at every disk call`, async () => {
    await withFolder(async (folder) => {
      const old = {
        "config.json": "old",
        "model.safetensors": "old",
        "vocab.txt": "old",
        "notes.txt": "mine",
      };
      for (const [name, text] of Object.entries(old)) await Deno.writeTextFile(join(folder, name), text);
      const files = new Map<string, FileContent>([
        ["config.json", "nc"],
        ["model.safetensors", async (sink) => await sink.write(new Uint8Array([110, 119]))],
        ["onnx/model.onnx", "no"],
      ]);
      const failures = await failEverywhere(
        lasting,
        (disk) => writeFolderAtomic(folder, files, { overwrite: true, obsolete: ["vocab.txt"], disk }),
        async (error, failAt) => {
          assert.ok(error instanceof InputError);
          assert.match(error.message, isDiskFull);
          assert.deepEqual(await snapshot(folder), old, `failure at call ${failAt}`);
        },
      );
      assert.ok(failures > 15, `only ${failures} calls could fail`);
      assert.deepEqual(await snapshot(folder), {
        "config.json": "nc",
        "model.safetensors": "nw",
        "notes.txt": "mine",
        "onnx/": "",
        "onnx/model.onnx": "no",
      });
    });
  });

  Deno.test(`writeFolderAtomic leaves no new folder after ${kind} failure`, async () => {
    await withFolder(async (folder) => {
      const target = join(folder, "a", "b");
      await failEverywhere(
        lasting,
        (disk) => writeFolderAtomic(target, new Map([["config.json", "{}"]]), { disk }),
        async (_, failAt) => assert.deepEqual(await snapshot(folder), {}, `failure at call ${failAt}`),
      );
      assert.deepEqual(await snapshot(target), { "config.json": "{}" });
    });
  });
}

Deno.test("writeFileAtomic passes on what the content throws, and cleans up", async () => {
  await withFolder(async (folder) => {
    const broken = async (sink: { write(bytes: Uint8Array): Promise<void> }) => {
      await sink.write(new Uint8Array(10));
      throw new RangeError("mine");
    };
    await assert.rejects(writeFileAtomic(join(folder, "x"), broken), new RangeError("mine"));
    assert.deepEqual(await snapshot(folder), {});
  });
});

Deno.test("checkOutputFolder refuses a model unless told to overwrite", async () => {
  await withFolder(async (folder) => {
    await checkOutputFolder(folder);
    await checkOutputFolder(join(folder, "not there"));
    await Deno.writeTextFile(join(folder, "config.json"), "{}");
    const refusal = new InputError(
      `${folder} already holds a model (config.json): pass --overwrite or another --out`,
    );
    await assert.rejects(checkOutputFolder(folder), refusal);
    await assert.rejects(writeFolderAtomic(folder, new Map([["config.json", "new"]])), refusal);
    assert.deepEqual(await snapshot(folder), { "config.json": "{}" });
    await checkOutputFolder(folder, { overwrite: true });
    await assert.rejects(
      checkOutputFolder(join(folder, "config.json")),
      new InputError(`Cannot write to ${join(folder, "config.json")}: it is a file, wanted a folder`),
    );
  });
});

Deno.test("errors of the real disk are one line with path and reason", async () => {
  await withFolder(async (folder) => {
    const file = join(folder, "file");
    await Deno.writeTextFile(file, "text");
    const cases: [() => Promise<unknown>, string][] = [
      [
        () => writeFileAtomic(join(folder, "no", "x"), "x"),
        `Cannot write ${folder}/no/x: no such file or folder`,
      ],
      [
        () => writeFileAtomic(join(file, "x"), "x"),
        `Cannot write ${file}/x: a part of the path is not a folder`,
      ],
      [() => writeFileAtomic(folder, "x"), `Cannot write ${folder}: it is a folder, wanted a file`],
      [
        () => writeFileAtomic(join(folder, "n".repeat(300)), "x"),
        `Cannot write ${join(folder, "n".repeat(300))}: the name is too long`,
      ],
      [() => readText(join(folder, "none")), `Cannot read ${folder}/none: no such file or folder`],
      [() => readText(folder), `Cannot read ${folder}: it is a folder, wanted a file`],
    ];
    for (const [attempt, message] of cases) await assert.rejects(attempt(), new InputError(message));
    assert.deepEqual(await snapshot(folder), { file: "text" });
  });
});

Deno.test("readText and readJson say what is wrong with the content", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "a.json");
    await Deno.writeFile(path, new Uint8Array([0xff, 0xfe]));
    await assert.rejects(readText(path), new InputError(`Cannot read ${path}: it is not UTF-8 text`));
    await Deno.writeTextFile(path, '{"a": }');
    await assert.rejects(
      readJson(path),
      new InputError(`${path} is not valid JSON: line 1, column 7: found "}", wanted a value`),
    );
    await Deno.writeTextFile(path, '{"a": [1]}');
    assert.deepEqual(await readJson(path), { a: [1] });
    assert.equal(await pathKind(join(path, "below a file")), undefined);
  });
});

Deno.test("removeLeftovers removes what killed writers leave in a folder, and nothing else", async () => {
  await withFolder(async (folder) => {
    await Deno.mkdir(join(folder, "training"));
    await writeFileAtomic(join(folder, "config.json"), "{}");
    // A process that is killed before the rename takes nothing back.
    const killed: Disk = {
      ...localDisk,
      rename: () => Promise.reject(new Error("killed")),
      remove: () => Promise.resolve(),
    };
    const written = Object.keys(await snapshot(folder));
    for (const name of ["config.json", "model.safetensors"]) {
      await assert.rejects(writeFileAtomic(join(folder, name), "half", killed));
    }
    await Deno.writeTextFile(join(folder, ".config.json.89abcdef.old"), "{}");
    const mine = ["notes.tmp", ".hidden", ".cache.old"];
    for (const name of mine) await Deno.writeTextFile(join(folder, name), "");
    assert.equal(Object.keys(await snapshot(folder)).length, written.length + 3 + mine.length);
    await removeLeftovers(folder);
    assert.deepEqual(Object.keys(await snapshot(folder)).sort(), [...written, ...mine].sort());
    await removeLeftovers(join(folder, "absent"));
  });
});

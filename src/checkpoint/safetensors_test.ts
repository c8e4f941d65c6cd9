import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import { InputError } from "../core/errors.ts";
import { writeFileAtomic } from "../core/files.ts";
import {
  bytesOf,
  openSafetensors,
  safetensorsContent,
  type SafetensorsDtype,
  type TensorEntry,
} from "./safetensors.ts";
import { openWeights } from "./shards.ts";

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A file with any header and data, sound or not. */
function fileBytes(header: string | Uint8Array, data: Uint8Array, headerBytes?: number | bigint): Uint8Array {
  const json = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const file = new Uint8Array(8 + json.length + data.length);
  new DataView(file.buffer).setBigUint64(0, BigInt(headerBytes ?? json.length), true);
  file.set(json, 8);
  file.set(data, 8 + json.length);
  return file;
}

const tensor = (
  name: string,
  dtype: SafetensorsDtype,
  shape: number[],
  array: ArrayBufferView,
): TensorEntry => ({
  name,
  dtype,
  shape,
  data: () => bytesOf(array),
});

Deno.test("a written file reads back, tensor by tensor", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "m.safetensors");
    const names = fc.uniqueArray(fc.string({ unit: "grapheme" }).filter((name) => name !== "__metadata__"), {
      maxLength: 6,
    });
    const shapes = fc.array(fc.nat(4), { maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(names, fc.infiniteStream(shapes), async (names, shapes) => {
        const wanted = new Map<string, { shape: number[]; bytes: Uint8Array }>();
        const entries = names.map((name, index) => {
          const shape = shapes.next().value!;
          const dtype = (["F32", "U8", "I64", "BF16"] as const)[index % 4];
          const elementBytes: number = { F32: 4, U8: 1, I64: 8, BF16: 2 }[dtype];
          const length = shape.reduce((a: number, b: number) => a * b, elementBytes);
          const bytes = crypto.getRandomValues(new Uint8Array(length));
          wanted.set(name, { shape, bytes });
          return tensor(name, dtype, shape, bytes);
        });
        await writeFileAtomic(path, safetensorsContent(entries));
        const file = await openSafetensors(path);
        assert.deepEqual(new Set(file.names), new Set(names));
        assert.deepEqual(file.metadata, { format: "pt" });
        for (const [name, { shape, bytes }] of wanted) {
          assert.deepEqual(file.info(name).shape, shape);
          assert.deepEqual(await file.bytes(name), bytes);
        }
      }),
      { numRuns: 50 },
    );
  });
});

Deno.test("safetensorsContent aligns every tensor and does not depend on the order given", async () => {
  await withFolder(async (folder) => {
    const entries = [
      tensor("b.mask", "U8", [3], new Uint8Array([1, 2, 3])),
      tensor("a", "F32", [1], new Float32Array([1.5])),
      tensor("z", "I64", [1], new BigInt64Array([-5n])),
      tensor("a.mask", "U8", [1], new Uint8Array([9])),
    ];
    const [one, two] = [join(folder, "1"), join(folder, "2")];
    await writeFileAtomic(one, safetensorsContent(entries));
    await writeFileAtomic(two, safetensorsContent(entries.toReversed()));
    assert.deepEqual(await Deno.readFile(one), await Deno.readFile(two));
    const file = await openSafetensors(one);
    assert.deepEqual(file.names, ["z", "a", "a.mask", "b.mask"]);
    assert.equal(file.info("z").offsetBytes % 8, 0);
    assert.equal(file.info("a").offsetBytes % 4, 0);
    assert.deepEqual(await file.integers("z"), [-5]);
  });
});

Deno.test("safetensorsContent rejects entries that contradict themselves", async () => {
  const ones = new Float32Array(2);
  assert.throws(
    () => safetensorsContent([tensor("a", "F32", [2], ones), tensor("a", "F32", [2], ones)]),
    new RangeError("Cannot write safetensors: the name a is used twice"),
  );
  await withFolder(async (folder) => {
    await assert.rejects(
      writeFileAtomic(join(folder, "x"), safetensorsContent([tensor("a", "F32", [3], ones)])),
      new RangeError("Cannot write a: it has 8 bytes, wanted 12 for F32 [3]"),
    );
    assert.deepEqual([...Deno.readDirSync(folder)], []);
  });
});

Deno.test("float32 converts the floating-point types exactly and refuses the others", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "m.safetensors");
    // 1, −2, the largest finite f16, +∞, NaN, the smallest subnormal f16
    const half = new Uint16Array([0x3c00, 0xc000, 0x7bff, 0x7c00, 0x7e00, 0x0001]);
    const brain = new Uint16Array([0x3f80, 0xc000, 0x7f80, 0x7fc0, 0x0001]);
    await writeFileAtomic(
      path,
      safetensorsContent([
        tensor("f16", "F16", [6], half),
        tensor("bf16", "BF16", [5], brain),
        tensor("f64", "F64", [2], new Float64Array([0.1, 1e300])),
        tensor("f32", "F32", [2], new Float32Array([0.1, NaN])),
        tensor("u8", "U8", [1], new Uint8Array(1)),
        tensor("big", "I64", [1], new BigInt64Array([2n ** 60n])),
      ]),
    );
    const file = await openSafetensors(path);
    assert.deepEqual([...await file.float32("f16")], [1, -2, 65504, Infinity, NaN, 2 ** -24]);
    assert.deepEqual([...await file.float32("bf16")], [1, -2, Infinity, NaN, 2 ** -133]);
    assert.deepEqual([...await file.float32("f64")], [Math.fround(0.1), Infinity]);
    assert.deepEqual([...await file.float32("f32")], [Math.fround(0.1), NaN]);
    await assert.rejects(
      file.float32("u8"),
      new InputError(`${path}: tensor u8 has the type U8, wanted F32, F16, BF16 or F64`),
    );
    await assert.rejects(
      file.integers("u8"),
      new InputError(`${path}: tensor u8 has the type U8, wanted I64 or I32`),
    );
    await assert.rejects(
      file.integers("big"),
      /^InputError: .* holds 1152921504606847000, wanted less than 2\^53$/,
    );
    await assert.rejects(file.bytes("none"), new InputError(`${path} has no tensor none`));
  });
});

Deno.test("openSafetensors says what a damaged or lying file has wrong", async () => {
  const two = new Uint8Array(8);
  const entry = (offsets: string, shape = "[1]", dtype = '"F32"') =>
    `{"dtype":${dtype},"shape":${shape},"data_offsets":${offsets}}`;
  const ok = entry("[0,4]");
  const cases: [Uint8Array, string][] = [
    [new Uint8Array(3), "is no valid safetensors file: it has 3 bytes, wanted at least 8"],
    [
      fileBytes("{}", two, 2n ** 63n),
      "is no valid safetensors file: its header claims 9223372036854776000 bytes, wanted at most 100000000",
    ],
    [
      fileBytes("{}", two, 11),
      "is no valid safetensors file: its header claims 11 bytes, but only 10 follow: the file is cut short",
    ],
    [fileBytes("{", two), "line 1, column 2: found the end, wanted a key in double quotes"],
    [fileBytes("[]", two), "is not a JSON object"],
    [fileBytes(new Uint8Array([0xff]), two), "is not UTF-8 text"],
    [fileBytes("{}", two), "8 bytes at its end belong to no tensor"],
    [fileBytes(`{"a":${ok},"a":${entry("[4,8]")}}`, two), 'the key "a" appears twice'],
    [
      fileBytes(`{"a":${entry("[0,4]", "[1]", '"F31"')}}`, two),
      'tensor "a" has the type "F31", wanted one of C64, U64,',
    ],
    [fileBytes('{"a":7}', two), 'tensor "a" has the type undefined'],
    [
      fileBytes(`{"a":${entry("[0,4]", "[-1]")}}`, two),
      'tensor "a" has the shape [-1], wanted whole numbers ≥ 0',
    ],
    [
      fileBytes(`{"a":${entry("[0,4]", "[1.5]")}}`, two),
      'tensor "a" has the shape [1.5], wanted whole numbers ≥ 0',
    ],
    [fileBytes(`{"a":${entry("[4,0]")}}`, two), 'tensor "a" has the data_offsets [4,0], wanted [begin, end]'],
    [fileBytes(`{"a":${entry("[0]")}}`, two), 'tensor "a" has the data_offsets [0], wanted [begin, end]'],
    [
      fileBytes(`{"a":${entry("[0,4]", "[2]")}}`, two),
      'tensor "a" takes 8 bytes as F32 [2], but its data_offsets span 4',
    ],
    [
      fileBytes(`{"a":${entry("[0,4]", "[4294967296,4294967296,4294967296]")}}`, two),
      'tensor "a" takes 3.1691265005705735e+29 bytes',
    ],
    [
      fileBytes(`{"a":${ok},"b":${entry("[4,12]", "[2]")}}`, two),
      'tensor "b" ends at byte 12 of the data, which has 8: the file is cut short',
    ],
    [
      fileBytes(`{"a":${ok},"b":${entry("[2,6]")}}`, two),
      'tensor "b" begins at byte 2 and overlaps the tensor before it, wanted 4',
    ],
    [
      fileBytes(`{"a":${entry("[4,8]")}}`, two),
      'tensor "a" begins at byte 4 and leaves a hole before it, wanted 0',
    ],
    [fileBytes(`{"a":${ok}}`, two), "4 bytes at its end belong to no tensor"],
    [fileBytes('{"__metadata__":{"a":1}}', new Uint8Array()), '__metadata__ has 1 for "a", wanted a string'],
    [fileBytes('{"__metadata__":[]}', new Uint8Array()), "__metadata__ is not an object"],
  ];
  await withFolder(async (folder) => {
    const path = join(folder, "bad.safetensors");
    for (const [bytes, problem] of cases) {
      await Deno.writeFile(path, bytes);
      const error = await openSafetensors(path).then(() => undefined, (error) => error);
      assert.ok(error instanceof InputError, `${problem}: ${error}`);
      assert.ok(
        error.message.includes(path) && error.message.includes(problem),
        `${error.message} lacks ${problem}`,
      );
      assert.doesNotMatch(error.message, /\n/);
    }
    await assert.rejects(
      openSafetensors(folder),
      new InputError(`Cannot read ${folder}: it is a folder, wanted a safetensors file`),
    );
    await assert.rejects(
      openSafetensors(join(folder, "none")),
      new InputError(`Cannot read ${join(folder, "none")}: no such file or folder`),
    );
  });
});

Deno.test("openSafetensors opens a fuzzed file or throws an InputError of one line", async () => {
  const numbers = fc.oneof(fc.nat(12), fc.constantFrom(-1, 1.5, 2 ** 31, 2 ** 53, 1e300));
  const entry = fc.record({
    dtype: fc.constantFrom<unknown>("F32", "U8", "BF16", "I64", "f32", null, "__proto__", "toString"),
    shape: fc.oneof(fc.array(numbers, { maxLength: 3 }), fc.anything()),
    data_offsets: fc.oneof(fc.array(numbers, { minLength: 2, maxLength: 2 }), fc.anything()),
  }, { requiredKeys: [] });
  const keys = fc.oneof(fc.constantFrom("a", "b", "__metadata__", "__proto__", "a\nb"), fc.string());
  const json = fc.oneof(fc.dictionary(keys, fc.oneof(entry, fc.jsonValue())), fc.jsonValue())
    .map((value) => new TextEncoder().encode(JSON.stringify(value, (_, v) => typeof v === "bigint" ? 0 : v)));
  const header = fc.oneof(json, fc.uint8Array({ maxLength: 40 }));
  await withFolder(async (folder) => {
    const path = join(folder, "fuzzed.safetensors");
    await fc.assert(
      fc.asyncProperty(
        header,
        fc.nat(24),
        fc.option(fc.maxSafeNat()),
        async (header, dataBytes, headerBytes) => {
          await Deno.writeFile(path, fileBytes(header, new Uint8Array(dataBytes), headerBytes ?? undefined));
          try {
            const file = await openSafetensors(path);
            for (const name of file.names) {
              assert.equal((await file.bytes(name)).length, file.info(name).byteLength);
            }
          } catch (error) {
            assert.ok(error instanceof InputError, String(error));
            assert.doesNotMatch(error.message, /\n/);
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});

Deno.test("a file that changes after it was opened is not read with its old header", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "m.safetensors");
    await writeFileAtomic(path, safetensorsContent([tensor("a", "F32", [1], new Float32Array([1]))]));
    const file = await openSafetensors(path);
    await writeFileAtomic(path, safetensorsContent([tensor("b", "F32", [2], new Float32Array([2, 3]))]));
    await assert.rejects(
      file.float32("a"),
      new InputError(`Cannot read a from ${path}: the file changed since it was opened`),
    );
  });
});

Deno.test("openWeights joins shards, and refuses an index that lies or reaches out", async () => {
  await withFolder(async (folder) => {
    await assert.rejects(
      openWeights(folder),
      /holds no weights, wanted model\.safetensors or model\.safetensors\.index/,
    );
    await Deno.writeTextFile(join(folder, "pytorch_model.bin"), "");
    await assert.rejects(openWeights(folder), /holds pytorch_model\.bin only, wanted model\.safetensors/);

    const shard = (name: string, tensorName: string, value: number) =>
      writeFileAtomic(
        join(folder, name),
        safetensorsContent([tensor(tensorName, "F32", [1], new Float32Array([value]))]),
      );
    await shard("model-00001-of-00002.safetensors", "a", 1);
    await shard("model-00002-of-00002.safetensors", "b", 2);
    const indexPath = join(folder, "model.safetensors.index.json");
    const writeIndex = (map: unknown) => Deno.writeTextFile(indexPath, JSON.stringify({ weight_map: map }));
    await writeIndex({ a: "model-00001-of-00002.safetensors", b: "model-00002-of-00002.safetensors" });
    const weights = await openWeights(folder);
    assert.deepEqual(weights.names, ["a", "b"]);
    assert.deepEqual([...await weights.float32("a"), ...await weights.float32("b")], [1, 2]);
    assert.throws(() => weights.info("c"), new InputError(`${indexPath} has no tensor c`));

    for (const name of ["../a.safetensors", "/a.safetensors", "config.json", 7]) {
      await writeIndex({ a: name });
      await assert.rejects(
        openWeights(folder),
        /^InputError: .* weight_map has .* for "a", wanted the name of/,
      );
    }
    await writeIndex({ b: "model-00001-of-00002.safetensors" });
    await assert.rejects(
      openWeights(folder),
      /places tensor "b" in model-00001-of-00002.safetensors, which does not/,
    );
    await writeIndex({ a: "model-00009-of-00002.safetensors" });
    await assert.rejects(openWeights(folder), /^InputError: Cannot read .*: no such file or folder$/);
    await writeIndex([]);
    await assert.rejects(openWeights(folder), /has no weight_map/);
  });
});

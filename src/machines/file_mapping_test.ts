import assert from "node:assert/strict";
import { join } from "node:path";
import { canMapFiles, mapFile, mappingGrain } from "./file_mapping.ts";
import { createArenaMemory } from "./mod.ts";

const grain = mappingGrain;

/** A file whose 32-bit words count up, and an arena full of sevens. */
async function withFile(run: (path: string, memory: WebAssembly.Memory) => Promise<void> | void) {
  const folder = await Deno.makeTempDir();
  try {
    const path = join(folder, "words");
    const words = Uint32Array.from({ length: 3 * grain / 4 }, (_, word) => word);
    await Deno.writeFile(path, new Uint8Array(words.buffer));
    const memory = createArenaMemory(8 * grain);
    new Uint8Array(memory.buffer).fill(7);
    await run(path, memory);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test({
  name: "mapFile shows a file's bytes in an arena, privately, even after the file is replaced",
  ignore: !canMapFiles(),
  async fn() {
    await withFile(async (path, memory) => {
      const [skew, byteLength] = [400, grain + 1000];
      assert.ok(mapFile(memory, 2 * grain + skew, path, { offsetBytes: grain + skew, byteLength }));
      const words = new Uint32Array(memory.buffer, 2 * grain + skew, byteLength / 4);
      const expected = Uint32Array.from(words, (_, word) => (grain + skew) / 4 + word);
      assert.deepEqual(Uint32Array.from(words), expected);
      assert.equal(new Uint8Array(memory.buffer)[2 * grain - 1], 7);
      assert.equal(new Uint8Array(memory.buffer)[4 * grain], 7);

      words[0] = 99;
      assert.equal(new Uint32Array((await Deno.readFile(path)).buffer)[(grain + skew) / 4], expected[0]);

      await Deno.writeFile(`${path}.new`, new Uint8Array(3 * grain));
      await Deno.rename(`${path}.new`, path);
      assert.deepEqual(Uint32Array.from(words.subarray(1)), expected.subarray(1));
    });
  },
});

Deno.test("mapFile leaves an arena as it is when there is nothing to map", async () => {
  await withFile((path, memory) => {
    const whole = { offsetBytes: 0, byteLength: grain };
    assert.equal(mapFile(memory, 2 * grain, `${path}.absent`, whole), false);
    assert.equal(mapFile(memory, 2 * grain, "/dev/null", whole), false);
    assert.ok(new Uint8Array(memory.buffer).every((byte) => byte === 7));
    assert.throws(() => mapFile(memory, 2 * grain + 4, path, whole), RangeError);
  });
});

Deno.test({
  name: "mapFile does nothing without the permission to call the system",
  permissions: { read: true, write: true, ffi: false },
  async fn() {
    await withFile((path, memory) => {
      assert.equal(mapFile(memory, 0, path, { offsetBytes: 0, byteLength: grain }), false);
      assert.equal(new Uint8Array(memory.buffer)[0], 7);
    });
  },
});

import assert from "node:assert/strict";
import fc from "fast-check";
import { Arena, ArenaSize } from "./arena.ts";

const ranges = fc.array(
  fc.record({
    bytes: fc.integer({ min: 0, max: 5000 }),
    alignment: fc.constantFrom(undefined, 64, 4096, 65536),
  }),
  { maxLength: 20 },
);

Deno.test("an arena of the size that ArenaSize tells hands out the same addresses, aligned and apart", () => {
  fc.assert(fc.property(ranges, (requests) => {
    const size = new ArenaSize();
    const planned = requests.map(({ bytes, alignment }) => size.allocate(bytes, "range", alignment));
    const arena = new Arena(size.byteLength);
    let end = 64;
    requests.forEach(({ bytes, alignment = 64 }, index) => {
      const address = arena.allocate(bytes, "range", alignment);
      assert.equal(address, planned[index]);
      assert.equal(address % alignment, 0);
      assert.ok(address >= end);
      end = address + bytes;
    });
    assert.ok(end <= arena.byteLength);
  }));
});

Deno.test("a full arena says what had no room", () => {
  const arena = new Arena(1000);
  assert.throws(() => arena.allocate(arena.byteLength, "weights"), /Cannot allocate \d+ bytes for weights/);
});

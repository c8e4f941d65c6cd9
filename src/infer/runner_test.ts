import assert from "node:assert/strict";
import { selectMachine } from "../machines/mod.ts";
import { maximumSequences, sizeOfRun } from "./runner.ts";

/** Machines by lanes; nothing is assembled here. */
const machines = [4, 8, 16].map((lanes) => ({ ...selectMachine("wasm"), lanes }));

Deno.test("sizeOfRun holds the batch, wastes less than a tile or an eighth, and has fewer values than programs have room", () => {
  for (const machine of machines) {
    const sizes = new Set<string>();
    for (let tokens = 1; tokens <= 2048; tokens++) {
      for (const sequences of [1, 2, 3, 7, 16, 17, 33, 64, 65, 100, 200, maximumSequences]) {
        if (sequences > tokens) continue;
        const { columns, sequences: rounded, target } = sizeOfRun(tokens, sequences, { machine, workers: 2 });
        assert.ok(columns >= tokens && rounded >= sequences);
        assert.equal(columns % target.tile + rounded % target.tile + target.tile % machine.lanes, 0);
        assert.ok(columns - tokens < Math.max(target.tile, columns / 8), `${tokens} tokens take ${columns}`);
        sizes.add(`${columns} ${rounded} ${target.tile}`);
      }
    }
    assert.ok(sizes.size < 256, `${machine.lanes} lanes: ${sizes.size} sizes`);
  }
});

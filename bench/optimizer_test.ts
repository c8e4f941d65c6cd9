import assert from "node:assert/strict";
import { availableMachines } from "../src/machines/mod.ts";
import { benchOptimizer, formatOptimizer } from "./optimizer.ts";

for (const { isa } of availableMachines()) {
  Deno.test(`benchOptimizer times every pass over all parameters, ${isa}`, async () => {
    const result = await benchOptimizer({ parameters: 1000, isa, threads: 2, turns: 3 });
    assert.equal(result.isa, isa);
    assert.equal(result.parameters, 1024);
    const bytes = {
      "copy": 16,
      "traffic": 28,
      "adamw": 28,
      "adamw_amsgrad": 36,
      "adam": 28,
      "sgd": 12,
      "sgd_momentum": 20,
      "sgd_nesterov": 20,
      "rmsprop": 20,
      "rmsprop_centered_momentum": 36,
      "adamw masked": 28.125,
    };
    assert.deepEqual(
      result.rows.map(({ pass, bytes_per_parameter }) => [pass, bytes_per_parameter]),
      Object.entries(bytes),
    );
    for (const row of result.rows) {
      assert.ok(row.median_ms >= row.best_ms && row.best_ms > 0, row.pass);
      assert.ok(Math.abs(row.gb_s - row.bytes_per_parameter * 1024 / row.median_ms / 1e6) < 1e-9, row.pass);
    }
    assert.equal(result.rows[0].share_of_copy, 1);
    assert.equal(formatOptimizer(result).split("\n").length, 2 + result.rows.length);
  });
}

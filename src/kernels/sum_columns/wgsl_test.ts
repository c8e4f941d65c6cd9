/** Sums over more columns than there are chunks of the usual size, with the shaders of a GPU and of a CPU that plays one. */
import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../../core/random.ts";
import { tiled } from "../../graph/graph.ts";
import { normals } from "../operands.ts";
import { runLowering, testGpu } from "../shader_conformance.ts";
import { sumColumnsReference } from "./reference.ts";
import { sumColumnsShaders } from "./wgsl.ts";

Deno.test("columns beyond the chunks of the usual size are summed as well", async () => {
  const gpu = await testGpu();
  if (!gpu) return;
  const [features, columns] = [3, 20_000];
  const type = tiled(features, columns);
  const values = normals(new RandomStream(randomKey(7)), type).map((value) => value + 1);
  const wanted = sumColumnsReference(features, columns, Float64Array.from(values));
  for (const isSoftware of [false, true]) {
    const as = { ...gpu, target: { ...gpu.target, isSoftware } };
    const [sums] = await runLowering(as, sumColumnsShaders, {}, [values], [type]);
    // 20,000 terms, of which no more than 256 follow each other in one sum.
    wanted.forEach((sum, n) =>
      assert.ok(Math.abs(sums[n] - sum) < 1e-5 * sum, `${n}: ${sums[n]}, wanted ${sum}`)
    );
  }
});

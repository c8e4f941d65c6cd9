/** What is said of memory, and whether it is what is taken. */
import assert from "node:assert/strict";
import { finetune } from "../../mod.ts";
import { describeMemory } from "./memory_report.ts";
import { TinyFolder } from "./tiny_run.ts";

const MiB = 2 ** 20;
const trainer = { arenaBytes: 300 * MiB, parameterBytes: 200 * MiB, activationBytes: 90 * MiB };
const always = "memory: 300 MiB: 200 MiB for weights, gradients and optimiser, 90 MiB for activations";

Deno.test("describeMemory names what comes on top where there is any", () => {
  assert.equal(describeMemory({ trainer, refreshBytes: 0 }), always);
  assert.equal(
    describeMemory({ trainer, metaBytes: 50 * MiB, refreshBytes: 7 * MiB }),
    `${always}; 50 MiB more for meta-updates; up to 7 MiB more for Fisher matrices while masks are renewed`,
  );
  assert.equal(
    describeMemory({ trainer: { ...trainer, arenaBytes: 180 * MiB }, onGpu: true, refreshBytes: 0 }),
    "memory: 290 MiB on the GPU: 200 MiB for weights, gradients and optimiser, 90 MiB for activations; " +
      "180 MiB beside it for a copy of the former",
  );
});

Deno.test("a run says what its optimiser and its pruning method take", async () => {
  await using folder = await TinyFolder.create();
  const noted = async (changes: Parameters<TinyFolder["settings"]>[0]) => {
    const notes: string[] = [];
    const message = (text: string) => notes.push(text);
    await finetune(folder.settings({ ...changes, epochs: 1, overwrite: true }), { listener: { message } });
    return notes.find((text) => text.startsWith("memory: "))!;
  };
  assert.doesNotMatch(await noted({}), / more for /);
  assert.match(await noted({ optimizer: "metaadamw", metaMode: "sound" }), /MiB more for meta-updates$/);
  assert.match(
    await noted({
      pruningMethod: "obert",
      pruneRefreshes: 1,
      pruningOptions: { gradients: 4, blockSize: 16 },
    }),
    /; up to \d+ MiB more for Fisher matrices/,
  );
});

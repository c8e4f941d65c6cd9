/** Pruning settings that cannot be: one line each, and nothing on disk changes. */
import { type Changes, refuses, TinyFolder } from "./tiny_run.ts";

Deno.test("finetune refuses pruning settings that cannot be", async () => {
  await using folder = await TinyFolder.create();
  const { init } = folder.settings();
  const wide = await folder.write(
    "wide.json",
    JSON.stringify({
      ...JSON.parse(await Deno.readTextFile(init!)),
      intermediate_size: 18,
    }),
  );
  const intermediate = "bert.encoder.layer.0.intermediate.dense.weight";
  const cases: [Changes, string | RegExp][] = [
    [
      { init: wide, pattern: "4x1" },
      `Cannot prune ${intermediate} [18, 16] in the pattern 4x1: wanted outputs in multiples of 4`,
    ],
    [
      { init: wide, pattern: "2:4", sparsity: 0.5 },
      "Cannot prune bert.encoder.layer.0.output.dense.weight [16, 18] in the pattern 2:4: wanted inputs in multiples of 4",
    ],
    [
      { pattern: "2:4", sparsity: 0.9 },
      "the flags: GMPruningModifier: final_sparsity is 0.9: wanted 0.5 for mask_type 2:4",
    ],
    [
      { pruningTargets: ["re:.*(query|key", "bert"] },
      /^the flags: GMPruningModifier: params is .*query\|key.*: wanted a name, re: and a regular expression/,
    ],
    [
      { pruningTargets: ["bert.pooler.dense"] },
      /^the flags: GMPruningModifier: Pruning target bert.pooler.dense matches .*: wanted one of bert.encoder.layer.0/,
    ],
    [
      { pruningMethod: "random" },
      "--pruning-method is random: wanted one of magnitude, constant, movement, soft-movement, obert",
    ],
    [{ pruningOptions: { gradients: 4 } }, "--pruning-options has gradients, 4: magnitude takes none"],
    [
      { pruningMethod: "obert", pruningOptions: { penalty: 4 } },
      "--pruning-options has penalty, 4: obert takes gradients, dampening, blockSize, recomputations, jointly",
    ],
    [
      { pruningMethod: "obert", pruningOptions: { jointly: "yes" } },
      'the flags: OBSPruningModifier: jointly is "yes": wanted true or false',
    ],
    [
      { pruningMethod: "obert", pattern: "[16,16]", pruningOptions: { blockSize: 64 } },
      "the flags: OBSPruningModifier: fisher_block_size is 64: wanted at least 256 for mask_type [16,16]",
    ],
    [
      { pruningSchedule: "sudden" },
      /^the flags: GMPruningModifier: inter_func is "sudden": wanted one of linear, cubic/,
    ],
    [
      { pruningMethod: "movement", pruneBegin: 0.5, pruneEnd: 0.5 },
      /^the flags: MovementPruningModifier: it prunes to 0.9 at its first refresh, step 12, /,
    ],
    [
      { pruningMethod: "soft-movement", pattern: "2:4", sparsity: 0.5 },
      "the flags: MovementPruningModifier: mask_type is 2:4 and soft is true: wanted single weights or blocks",
    ],
    [
      { pruningMethod: "constant" },
      "Pruning method constant finds no zero among the 4096 weights of its targets: wanted a pruned model",
    ],
    [
      { metaMode: "paper" },
      "the flags: OptimizerModifier: optimizer is adamw: wanted metaadamw, whose are meta_mode and meta_options",
    ],
    [
      { optimizer: "metaadamw", metaOptions: { rank: 3 } },
      /^the flags: OptimizerModifier: MetaAdamW has no option rank, 3: wanted one of grouping, /,
    ],
  ];
  for (const [changes, message] of cases) await refuses(folder, changes, message);
});

/** Flags beside a recipe: those it overrules are refused, those it needs or leaves room for are not. */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { TinyFolder } from "../finetune/tiny_run.ts";
import { normaliseFlags } from "./command.ts";
import { finetuneCommand } from "./finetune_flags.ts";
import { settingsOf } from "./finetune_settings.ts";
import { checkRecipeFlags } from "./recipe_flags.ts";
import { runTask } from "./start_task.ts";

async function check(recipe: string, ...flags: string[]): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".yaml" });
  try {
    await Deno.writeTextFile(path, recipe);
    const command = finetuneCommand().parse(normaliseFlags([...flags, "--recipe", path]), { from: "user" });
    await checkRecipeFlags(command, settingsOf(command.opts()));
  } catch (error) {
    throw error instanceof InputError ? new InputError(error.message.replaceAll(path, "r.yaml")) : error;
  } finally {
    await Deno.remove(path);
  }
}

const training = `num_epochs: 3
modifiers:
  - !EpochRangeModifier {end_epoch: eval(num_epochs)}
  - !SetLearningRateModifier {learning_rate: 1, start_epoch: 1}
  - !SetWeightDecayModifier {weight_decay: 0}
`;
const distilling = `${training}  - !DistillationModifier {}\n`;

Deno.test("a typed flag that the recipe overrules is refused, though it has the default's value", async () => {
  const cases: [string[], string][] = [
    [["--epochs", "3"], "--epochs is 3, and r.yaml says all about the length"],
    [["--weight-decay", "0.1"], "--weight-decay is 0.1, and r.yaml says all about the weight decay"],
    [["--warmup-steps", "3"], "--warmup-steps is 3, and r.yaml says all about the learning rate"],
    [["--sparsity", "0.9"], "--sparsity is 0.9, and r.yaml says all about the pruning"],
    [
      ["--prune-targets", "re:.*query"],
      '--prune-targets is ["re:.*query"], and r.yaml says all about the pruning',
    ],
    [["--teacher", "dense"], "--teacher is dense, and r.yaml says all about the distillation"],
    [["--hardness", "0.5"], "--hardness is 0.5, and r.yaml says all about the distillation"],
  ];
  for (const [flags, message] of cases) {
    const error = new InputError(`${message}: wanted it in the recipe or in --recipe-args`);
    await assert.rejects(check(training, ...flags), error);
  }
  await assert.rejects(
    check("modifiers: 3", "--epochs", "3"),
    /^InputError: r.yaml, line 1: modifiers is no list/,
  );
});

Deno.test("flags that a recipe is silent about, holds for later or asks for are taken", async () => {
  await check(training);
  await check(training, "--learning-rate", "0.1", "--optimizer", "sgd", "--momentum", "0.9", "--seed", "3");
  await check(training, "--recipe-args", '{"num_epochs": 2}', "--teacher", "disable");
  await check(distilling, "--teacher", "dense");
  await check("modifiers: []", "--epochs", "2", "--weight-decay", "0.1", "--warmup-ratio", "0.1");
});

Deno.test("every flag of finetune that a recipe may overrule is one of its flags", async () => {
  const source = await Deno.readTextFile(new URL("../finetune/beside_recipe.ts", import.meta.url));
  const known = finetuneCommand().options.map(({ long }) => long);
  const named = Array.from(source.matchAll(/"(--[a-z0-9-]+)"/g), ([, flag]) => flag);
  assert.ok(named.length > 20);
  for (const flag of named) assert.ok(known.includes(flag), flag);
});

Deno.test("finetune --print-recipe prints a recipe that prints itself, and nothing that could not run", async () => {
  await using folder = await TinyFolder.create();
  const flags = ["--optimizer", "metaadamw", "--meta-mode", "paper", "--pruning-method", "obert"];
  const options = ["--meta-options", '{"updateEvery":7}', "--pruning-options", '{"jointly":true}'];
  const print = (...args: string[]) => runTask("finetune", ["--print-recipe", ...args], { cwd: folder.path });
  const { stdout, code } = await print(...flags, ...options);
  assert.equal(code, 0);
  for (const line of ["meta_mode: paper", "updateEvery: 7", "jointly: true", "num_grads: "]) {
    assert.ok(stdout.includes(line), `${line} in ${stdout}`);
  }
  await folder.write("printed.yaml", stdout);
  const before = folder.snapshot();
  const [again, refused] = await Promise.all([
    print("--recipe", "printed.yaml"),
    print(...flags, "--meta-options", '{"heads":0}'),
  ]);
  assert.equal(again.stdout, stdout);
  assert.deepEqual([refused.code, refused.stdout], [2, ""]);
  assert.deepEqual(refused.errors, [
    "lacuna finetune: the flags: OptimizerModifier: MetaAdamW's heads is 0: wanted a whole number of at least 1",
  ]);
  assert.deepEqual(folder.snapshot(), before);
});

/**
 * The flags of `deno task compare`: its own, and those of `finetune`, which are for all variants of the grid.
 * @module
 */
import { CommanderError } from "commander";
import { flagArguments, type Flags, type FlagValue, type KnownFlags } from "../compare/flags.ts";
import { type Grid, type GridDescription, makeGrid } from "../compare/grid.ts";
import { parseGridFile } from "../compare/grid_file.ts";
import { errorMessage, InputError } from "../core/errors.ts";
import { readText } from "../core/files.ts";
import type { FinetuneSettings } from "../finetune/options.ts";
import { type Command, makeCommand, parseList, parseNumber } from "./command.ts";
import { finetuneCommand } from "./finetune_flags.ts";
import { settingsOf } from "./finetune_settings.ts";

/** Flags of finetune that a comparison sets itself, or that make no sense in one. */
const reserved = [
  "json",
  "seed",
  "seeds",
  "threads",
  "out",
  "overwrite",
  "resume",
  "find-lr",
  "print-recipe",
];

/** Flags of finetune that variants may have. */
const gridOptions = finetuneCommand().options.filter(({ long }) => !reserved.includes(long!.slice(2)));

/** The same by name. */
export const knownFlags: KnownFlags = new Map(
  gridOptions.map((option) => [option.long!.slice(2), { takesValue: !option.isBoolean() }]),
);

/** The command's own flags, parsed. */
export interface CompareFlags {
  readonly set: Readonly<Record<string, string>>;
  readonly optimizers?: readonly string[];
  readonly baseline?: string;
  readonly controls?: readonly number[];
  readonly seeds?: number;
  readonly jobs: number;
  readonly threads?: number;
  readonly keep: boolean;
  readonly out?: string;
  readonly markdown?: string;
  readonly html?: string;
  readonly json?: string;
}

/** The command with all its flags. */
export function compareCommand(): Command {
  const command = makeCommand(
    "compare",
    "Train variants of a run over several seeds under the same budget, and say which differences are real.\n" +
      "Variants are those of a grid file (bench/compare/*.yaml) or --optimizers. All flags of finetune are taken too;\n" +
      "they are for all variants, in the place of those the grid file has for all.",
  )
    .argument("[grid]", "grid file")
    .option("--set <name=value>", "value of ${name} in the grid file; once for each", addVariable, {})
    .option("--optimizers <a,b,…>", "without a grid file: these, all else alike", parseList)
    .option("--baseline <name>", "what the others are held against (default: the grid's, or the first)")
    .option(
      "--controls <x,y,…>",
      "with --optimizers: the baseline at its learning rate times these too",
      parseNumbers,
    )
    .option("--seeds <n>", "seeds of each variant, from 1 on (default: the grid's, or 5)", parseNumber)
    .option("--jobs <n>", "runs at once", parseNumber, 1)
    .option("--threads <n>", "worker threads of each run (default: usable cores / jobs)", parseNumber)
    .option("--keep", "keep the models", false)
    .option("--out <dir>", "where results are gathered (default runs/compare/<name>)")
    .option("--markdown <file>", "write the result as Markdown")
    .option("--html <file>", "write the result as a page");
  for (const option of gridOptions) command.addOption(option.hideHelp());
  return command;
}

function addVariable(text: string, variables: Record<string, string>): Record<string, string> {
  const [, name, value] = /^(\w+)=(.*)$/s.exec(text) ?? [];
  if (name === undefined) throw new InputError(`--set is ${text}: wanted name=value`);
  return { ...variables, [name]: value };
}

function parseNumbers(text: string): number[] {
  return parseList(text).map(parseNumber);
}

/** The grid that a command line means. Throws InputError for flags that do not go together, and what `makeGrid` throws. */
export async function gridOf(command: Command): Promise<Grid> {
  const flags = command.opts<CompareFlags>();
  const [file] = command.args;
  const given = givenFlags(command);
  if (file === undefined) {
    return makeGrid(describeOptimizers(flags, given), { source: "--optimizers", knownFlags });
  }
  for (const name of ["optimizers", "controls"] as const) {
    if (flags[name]) {
      throw new InputError(`--${name} is given with the grid file ${file}: wanted one of the two`);
    }
  }
  const description = parseGridFile(await readText(file), file, flags.set);
  const { base, seeds, baseline } = description;
  return makeGrid({
    ...description,
    base: { ...base, ...given },
    seeds: flags.seeds ?? seeds,
    baseline: flags.baseline ?? baseline,
  }, { source: file, knownFlags });
}

function describeOptimizers(
  { set, optimizers, controls, ...flags }: CompareFlags,
  base: Flags,
): GridDescription {
  if (!optimizers || optimizers.length === 0) {
    throw new InputError(
      "there is nothing to compare: wanted a grid file, or --optimizers and the flags of a run",
    );
  }
  if ("optimizer" in base) {
    throw new InputError("--optimizer is given with --optimizers: wanted one of the two");
  }
  const [variable] = Object.keys(set);
  if (variable !== undefined) {
    throw new InputError(`--set ${variable} is given without a grid file: wanted none`);
  }
  const baseline = flags.baseline ?? optimizers[0];
  return {
    name: optimizers.join("-"),
    base,
    seeds: flags.seeds ?? 5,
    baseline,
    variants: Object.fromEntries(optimizers.map((optimizer) => [optimizer, { optimizer }])),
    controls: controls && { of: baseline, factors: controls },
  };
}

/** The flags of finetune that were given. */
function givenFlags(command: Command): Flags {
  const entries = gridOptions.flatMap((option) => {
    const name = option.attributeName();
    const isGiven = command.getOptionValueSource(name) === "cli";
    return isGiven ? [[option.long!.slice(2), command.opts()[name] as FlagValue] as const] : [];
  });
  return Object.fromEntries(entries);
}

/** A run's flags as finetune would read them. Throws InputError for a value that a flag does not take. */
export function settingsOfFlags(flags: Flags, variant: string): FinetuneSettings {
  const command = finetuneCommand().configureOutput({ writeErr: () => {}, outputError: () => {} });
  try {
    return settingsOf(command.parse(flagArguments(flags), { from: "user" }).opts());
  } catch (error) {
    if (!(error instanceof CommanderError || error instanceof InputError)) throw error;
    throw new InputError(`variant ${variant}: ${errorMessage(error).replace(/^error: /, "")}`);
  }
}

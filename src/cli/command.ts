/**
 * What all commands share: flags, exit codes, the one-line error, and `--json`.
 * @module
 */
import { dirname } from "node:path";
import { Command, CommanderError, InvalidArgumentError } from "commander";
import { errorMessage, InputError, UnsupportedError } from "../core/errors.ts";
import { pathKind, writeFileAtomic } from "../core/files.ts";
import { fallbackReason } from "../machines/mod.ts";

export { Command } from "commander";

/** Flags of the Hugging Face trainer and its scripts, by the name they have here. */
const aliases: Readonly<Record<string, string>> = {
  "--model-name-or-path": "--model",
  "--train-file": "--train",
  "--validation-file": "--eval",
  "--num-train-epochs": "--epochs",
  "--per-device-train-batch-size": "--batch-size",
  "--max-seq-length": "--max-length",
  "--output-dir": "--out",
  "--overwrite-output-dir": "--overwrite",
  "--resume-from-checkpoint": "--resume",
};

/** Flag names with underscores, and those of the Hugging Face trainer, in the spelling used here. What follows a
 *  bare `--` is text. */
export function normaliseFlags(args: readonly string[]): string[] {
  const textBegin = args.indexOf("--");
  return args.map((arg, index) => {
    if (!arg.startsWith("--") || (textBegin >= 0 && index >= textBegin)) return arg;
    const [name, ...value] = arg.split("=");
    const dashed = name.replaceAll("_", "-");
    return [aliases[dashed] ?? dashed, ...value].join("=");
  });
}

/** Parses a number for commander; anything else is bad usage. */
export function parseNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || Number.isNaN(value)) throw new InvalidArgumentError("wanted a number");
  return value;
}

/** A list separated by commas. */
export function parseList(text: string): string[] {
  return text.split(",").map((part) => part.trim()).filter((part) => part !== "");
}

/** A command with the flags every command has. */
export function makeCommand(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .option("--json <file>", "write the result as JSON; - for standard output")
    .exitOverride()
    .configureOutput({
      // commander puts its "did you mean" on a second line.
      outputError: (text, write) =>
        write(`lacuna ${name}: ${errorMessage(text).replace(/^error: /, "")} (--help lists the flags)\n`),
    });
}

/**
 * Runs a command and ends the process: 0 for success, 2 for bad usage or bad input with one line on standard
 * error, 1 for anything else.
 */
export async function runCommand(
  command: Command,
  action: (command: Command) => Promise<void>,
): Promise<never> {
  try {
    command.parse(normaliseFlags(Deno.args), { from: "user" });
    await checkJsonFile(command.opts().json);
    await action(command);
    Deno.exit(0);
  } catch (error) {
    if (error instanceof CommanderError) Deno.exit(error.exitCode === 0 ? 0 : 2);
    console.error(`lacuna ${command.name()}: ${errorMessage(error)}`);
    const isInput = error instanceof InputError || error instanceof UnsupportedError;
    if (!isInput && Deno.env.get("LACUNA_DEBUG") && error instanceof Error) console.error(error.stack);
    Deno.exit(isInput ? 2 : 1);
  }
}

/** Whether the readable output must leave standard output to `--json -`. */
export function jsonOnStandardOutput(json: string | undefined): boolean {
  return json === "-";
}

/** Refuses a `--json` that could not be written in the end, before there is a result to lose. */
async function checkJsonFile(json: string | undefined): Promise<void> {
  if (json === undefined || json === "-") return;
  if (await pathKind(json) === "folder") throw new InputError(`--json is ${json}, a folder: wanted a file`);
  if (await pathKind(dirname(json)) !== "folder") {
    throw new InputError(`--json is ${json}: wanted a file in a folder that exists`);
  }
}

/** Writes a result where `--json` says. */
export async function writeJson(json: string | undefined, result: unknown): Promise<void> {
  if (json === undefined) return;
  const text = JSON.stringify(result, null, 2) + "\n";
  if (json !== "-") return await writeFileAtomic(json, text);
  const bytes = new TextEncoder().encode(text);
  // A pipe takes as many bytes at a time as it has room for.
  for (let done = 0; done < bytes.length;) done += await Deno.stdout.write(bytes.subarray(done));
}

/** Says on standard error why kernels run as WebAssembly, where nobody asked for that. */
export function noteFallback(isa: string | undefined): void {
  const reason = fallbackReason(isa);
  if (reason) console.error(reason);
}

/**
 * `deno task export`: a model folder in, the deployable folder out.
 * @module
 */
import { exportModel } from "../../mod.ts";
import { InputError } from "../core/errors.ts";
import { parsePattern, patternForms } from "../pruning/pattern.ts";
import { type Command, jsonOnStandardOutput, makeCommand, runCommand, writeJson } from "./command.ts";

/** The command with all its flags. */
export function exportCommand(): Command {
  return makeCommand("export", "Write the deployable folder of a model.")
    .option("--model <dir|hub id>", "model to export")
    .option("--out <dir>", "output folder")
    .option(
      "--format <name>",
      "sparse (with onnx/model.onnx), safetensors, or onnx (with dense safetensors)",
      "sparse",
    )
    .option("--pattern <name>", `pattern of the zeros, noted in the config: ${patternForms}`, "unstructured")
    .option("--quantize <type>", "int8 weights: not available in this version")
    .option("--overwrite", "replace the model in the output folder", false);
}

async function run(command: Command): Promise<void> {
  const flags = command.opts();
  for (const name of ["model", "out"]) {
    if (flags[name] === undefined) throw new InputError(`--${name} is missing: wanted a folder`);
  }
  if (flags.quantize !== undefined) {
    throw new InputError(`--quantize is ${flags.quantize}: this version exports f32 weights only`);
  }
  const result = await exportModel(
    { ...flags, pattern: parsePattern(flags.pattern) } as Parameters<
      typeof exportModel
    >[0],
  );
  if (!jsonOnStandardOutput(flags.json)) {
    console.log(
      `written to ${result.dir}, ${(result.sparsity * 100).toFixed(1)} % zeros in the encoder's matrices:`,
    );
    for (const { name, byteLength, what } of result.files) {
      console.log(`  ${name}  ${(byteLength / 2 ** 20).toFixed(2)} MiB  ${what}`);
    }
  }
  await writeJson(flags.json, result);
}

if (import.meta.main) await runCommand(exportCommand(), run);

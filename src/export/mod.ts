/**
 * Export: a model folder in, the deployable folder out — sparse weights, and an ONNX file for other runtimes.
 * @module
 */
import { join } from "node:path";
import { bertTensorShapes } from "../../models/config.ts";
import { maskedLmTensorShapes } from "../../models/masked_lm_config.ts";
import { onnxFile, openModel, saveModel } from "../checkpoint/model_folder.ts";
import { weightsFile } from "../checkpoint/shards.ts";
import { InputError } from "../core/errors.ts";
import { checkOutputFolder } from "../core/files.ts";
import type { Pattern } from "../pruning/pattern.ts";
import { sparsityOfWeights } from "../pruning/sparsity.ts";
import { bertToOnnx } from "./onnx.ts";

/**
 * What a folder can hold: `sparse` sparse weights and ONNX, `safetensors` dense weights, `onnx` dense weights and ONNX. Of a
 * masked language model there is no ONNX file.
 */
export type ExportFormat = "sparse" | "safetensors" | "onnx";

const exportFormats: readonly ExportFormat[] = ["sparse", "safetensors", "onnx"];

/** What to export. */
export interface ExportOptions {
  /** Model folder or hub id. */
  readonly model: string;
  /** Output folder. */
  readonly out: string;
  /** Default `sparse`. */
  readonly format?: ExportFormat;
  /** Pattern of the zeros, noted in the config. Default `unstructured`. */
  readonly pattern?: Pattern;
  /** Replace a model that is already there. */
  readonly overwrite?: boolean;
}

/** A written file. */
export interface ExportedFile {
  /** Path inside the folder. */
  readonly name: string;
  /** Size in bytes. */
  readonly byteLength: number;
  /** What it is, for the reader. */
  readonly what: string;
}

/** What was written where. */
export interface ExportResult {
  /** The folder. */
  readonly dir: string;
  /** The large files in it. */
  readonly files: readonly ExportedFile[];
  /** Zeros among the prunable weights. */
  readonly sparsity: number;
}

/** Writes the folder, all files or none. Throws `InputError` for a bad model, format or output folder. */
export async function exportModel(options: ExportOptions): Promise<ExportResult> {
  const format = options.format ?? "sparse";
  if (!exportFormats.includes(format)) {
    throw new InputError(`--format is ${format}: wanted one of ${exportFormats.join(", ")}`);
  }
  await checkOutputFolder(options.out, options);
  const model = await openModel(options.model, { head: "stored" });
  const isMaskedLm = model.head === "masked-lm";
  if (isMaskedLm && format === "onnx") {
    throw new InputError(
      `${options.model} is a masked language model, of which there is no ONNX file: ` +
        `wanted --format sparse or safetensors`,
    );
  }
  if (model.missing.length > 0) {
    throw new InputError(
      `${options.model} lacks ${model.missing.join(", ")}: fine-tune it before exporting it`,
    );
  }
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  const shapes = isMaskedLm ? maskedLmTensorShapes(model.config) : bertTensorShapes(model.config);
  for (const [name, shape] of shapes) {
    weights.set(name, { shape, data: await model.tensors.weight(name, shape) });
  }
  const tensors = Array.from(weights, ([name, { shape, data }]) => ({ name, shape, data }));
  const sparsity = sparsityOfWeights(tensors.map(({ name, data }) => ({ name, values: data }))).overall;
  const otherFiles = new Map<string, Uint8Array>();
  if (format !== "safetensors" && !isMaskedLm) {
    const weight = (name: string) => weights.get(name)!.data;
    otherFiles.set(onnxFile, bertToOnnx(model.config, weight, { operators: "standard" }));
  }
  await saveModel(options.out, {
    configJson: model.configJson,
    tensors,
    tokenizerFiles: model.tokenizerFiles,
    format: format === "sparse" ? "sparse-bitmask" : "dense",
    sparsity: { structure: options.pattern ?? "unstructured", global: sparsity },
    otherFiles,
    overwrite: options.overwrite,
  });

  const files: ExportedFile[] = [];
  const list = async (name: string, what: string) => {
    const { size } = await Deno.stat(join(options.out, name));
    files.push({ name, byteLength: size, what });
  };
  const what = format === "sparse"
    ? `weights, ${(sparsity * 100).toFixed(1)} % of the encoder's left out as zeros`
    : "weights";
  await list(weightsFile, what);
  if (otherFiles.has(onnxFile)) {
    await list(onnxFile, "the same model dense, for ONNX Runtime and transformers.js");
  }
  return { dir: options.out, files, sparsity };
}

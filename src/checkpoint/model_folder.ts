/**
 * A Hugging Face model folder: opened and checked against its config, or written as one step.
 *
 * Whatever shape the weights come in (one file or shards, dense or `sparse-bitmask`, bare encoder or with a head,
 * old or new names), they leave {@link openModel} under the names of `BertForSequenceClassification`.
 * @module
 */
import { join } from "node:path";
import { type BertConfig, bertTensorShapes, parseBertConfig } from "../../models/config.ts";
import { isMaskedLm, maskedLmTensorShapes } from "../../models/masked_lm_config.ts";
import { InputError } from "../core/errors.ts";
import { exists, type FileContent, pathKind, readBytes, readJson, writeFolderAtomic } from "../core/files.ts";
import { showValue } from "../core/json.ts";
import { downloadModel, type DownloadOptions, isHubId } from "./hub.ts";
import {
  bytesOf,
  safetensorsContent,
  type SafetensorsFile,
  type TensorEntry,
  type TensorLocation,
} from "./safetensors.ts";
import { openWeights, shardIndexFile, weightsFile } from "./shards.ts";
import {
  bitmaskBytes,
  bitmaskEntries,
  bitmaskKeys,
  bitmaskPrefixes,
  countNonZeros,
  decodeBitmask,
  encodeBitmask,
  openBitmask,
  readBitmask,
  readBitmaskShape,
  type StoredMatrix,
} from "./sparse_bitmask.ts";
import { tokenizerFileNames } from "./tokenizer_files.ts";

/** Where transformers.js looks for the model in a folder. */
export const onnxFile = "onnx/model.onnx";

/** The weights of an opened model. */
export interface TensorSource {
  /** Names of the dense and the sparse tensors, as `BertForSequenceClassification` has them. */
  readonly names: readonly string[];
  /** The shape of a tensor; `undefined` when the checkpoint lacks it. */
  shape(name: string): readonly number[] | undefined;
  /**
   * A tensor as dense, row-major f32.
   * @throws InputError when it is missing or has another shape.
   */
  weight(name: string, shape: readonly number[]): Promise<Float32Array<ArrayBuffer>>;
  /** The same, into memory that exists already (shared memory too) and has the length of that shape. */
  readWeight(name: string, shape: readonly number[], target: Float32Array): Promise<void>;
  /** A tensor that is stored without its zeros; `undefined` when it is stored dense or missing. */
  sparse(name: string): Promise<StoredMatrix | undefined>;
  /** Where a tensor lies that is stored dense; `undefined` when it is stored without its zeros or missing. */
  location(name: string): Promise<TensorLocation | undefined>;
}

/** What is behind the encoder: a classifier, of one output for scores, or the guesser of masked tokens. */
export type ModelHead = "classifier" | "masked-lm";

/** An opened model folder. */
export interface Model {
  /** The checked config, with the labels asked for. */
  readonly config: BertConfig;
  /** Class names of the checkpoint itself, whatever labels were asked for. */
  readonly storedLabels: readonly string[];
  /** `config.json` as it was, with all the fields this project does not know. */
  readonly configJson: Readonly<Record<string, unknown>>;
  /** The folder read; for a hub id, the one in the cache. */
  readonly dir: string;
  /** The weights. */
  readonly tensors: TensorSource;
  /** The head that was asked for. */
  readonly head: ModelHead;
  /** Names of head tensors the checkpoint lacks, to be initialised: of the pooler and the classifier, or of `cls`. */
  readonly missing: readonly string[];
  /** Names of tensors in the checkpoint that the model has no place for. */
  readonly unused: readonly string[];
  /** Content of the tokenizer files that are there, by name. */
  readonly tokenizerFiles: ReadonlyMap<string, Uint8Array>;
}

/** Settings of {@link openModel}. */
export interface OpenModelOptions {
  /** Class names to use instead of the config's. A classifier of another size then counts as missing. */
  readonly labels?: readonly string[];
  /** The head to look for; `stored`: the one the config names. Default `classifier`. */
  readonly head?: ModelHead | "stored";
  /** How to reach the hub. */
  readonly download?: DownloadOptions;
}

/**
 * Opens a folder, or downloads a model of the Hugging Face hub into its cache and opens that. A folder wins over a
 * hub id of the same name.
 *
 * Every encoder tensor is checked against the config from the file headers; no weights are read yet.
 * @throws InputError when there is no such model, or it is damaged, or not a BERT.
 */
export async function openModel(dirOrHubId: string, options: OpenModelOptions = {}): Promise<Model> {
  const dir = await locateModel(dirOrHubId, options.download);
  const configPath = join(dir, "config.json");
  if (!await exists(configPath)) throw new InputError(`${dir} holds no model: config.json is missing`);
  const configJson = await readJson(configPath) as Record<string, unknown>;
  const { head: asked = "classifier" } = options;
  const newHead = options.labels !== undefined || asked === "masked-lm";
  const stored = parseBertConfig(configJson, configPath, { newHead });
  const config = options.labels ? { ...stored, labels: options.labels } : stored;
  checkCompression(configJson, configPath);

  const tensors = await openTensors(await openWeights(dir));
  const head = asked !== "stored" ? asked : isMaskedLm(configJson) ? "masked-lm" : "classifier";
  const wanted = head === "masked-lm" ? maskedLmTensorShapes(config) : bertTensorShapes(config);
  const mayDiffer = options.labels !== undefined && options.labels.length !== stored.labels.length;
  const missing: string[] = [];
  for (const [name, shape] of wanted) {
    const isHead = headPrefixes.some((prefix) => name.startsWith(prefix));
    const found = tensors.shape(name);
    const absent = found === undefined ||
      (mayDiffer && name.startsWith("classifier.") && !sameShape(found, shape));
    if (absent && isHead) missing.push(name);
    else checkShape(dir, name, found, shape);
  }
  return {
    config,
    storedLabels: stored.labels,
    configJson,
    dir,
    tensors,
    head,
    missing,
    unused: tensors.names.filter((name) => !wanted.has(name)),
    tokenizerFiles: await readTokenizerFiles(dir),
  };
}

const headPrefixes: readonly string[] = ["classifier.", "bert.pooler.", "cls."];

/** What Hugging Face prints when a head is missing; `undefined` when none is. */
export function newlyInitialisedMessage(model: Model): string | undefined {
  if (model.missing.length === 0) return undefined;
  const names = [...model.missing].sort().map((name) => `'${name}'`).join(", ");
  const architecture = model.head === "masked-lm" ? "BertForMaskedLM" : "BertForSequenceClassification";
  return `Some weights of ${architecture} were not initialized from the model checkpoint at ` +
    `${model.dir} and are newly initialized: [${names}]. You should train this model before using it.`;
}

/** A dense tensor to be saved. */
export interface NamedTensor {
  /** Name in `BertForSequenceClassification`. */
  readonly name: string;
  /** Lengths of the dimensions, outermost first. */
  readonly shape: readonly number[];
  /** The elements, row-major. */
  readonly data: Float32Array;
}

/** What {@link saveModel} writes. */
export interface SavedModel {
  /** Content of `config.json`, for instance from `bertConfigJson`. */
  readonly configJson: Readonly<Record<string, unknown>>;
  /** All weights, each row-major. */
  readonly tensors: Iterable<NamedTensor>;
  /** Content of the tokenizer files, by name. */
  readonly tokenizerFiles: ReadonlyMap<string, Uint8Array>;
  /** `dense` loads in every library; `sparse-bitmask` leaves out zeros wherever that makes the file smaller. */
  readonly format: "dense" | "sparse-bitmask";
  /** For the sparse config: pattern name, and the fraction of zeros among the prunable weights. */
  readonly sparsity?: { readonly structure: string; readonly global: number };
  /** More files for the same step, by name, such as `onnx/model.onnx`. */
  readonly otherFiles?: ReadonlyMap<string, FileContent>;
  /** Replace a model that is already there. */
  readonly overwrite?: boolean;
}

/**
 * Writes a model folder: config, weights and tokenizer, all or nothing. Files of these kinds that an overwritten
 * model had and this one has not are removed, so that no tokenizer, ONNX file or shard list of another model stays.
 * @throws InputError when the folder holds a model and `overwrite` is not set, or the disk refuses.
 */
export async function saveModel(dir: string, model: SavedModel): Promise<void> {
  const configJson = Object.fromEntries(
    Object.entries(model.configJson).filter(([field]) => !compressionFields.includes(field)),
  );
  const entries: TensorEntry[] = [];
  const targets: string[] = [];
  for (const { name, shape, data } of model.tensors) {
    if (model.format === "sparse-bitmask" && isSmallerSparse(name, shape, data)) {
      const module = name.slice(0, -".weight".length);
      targets.push(module);
      entries.push(...bitmaskEntries(module, encodeBitmask(data, [shape[0], shape[1]])));
    } else {
      entries.push({ name, dtype: "F32", shape, data: () => bytesOf(data) });
    }
  }
  const config = model.format === "dense"
    ? configJson
    : { ...configJson, quantization_config: compressionConfig(targets, model.sparsity) };
  const files = new Map<string, FileContent>([
    [weightsFile, safetensorsContent(entries)],
    ...model.tokenizerFiles,
    ...model.otherFiles ?? [],
    ["config.json", JSON.stringify(config, null, 2) + "\n"],
  ]);
  await writeFolderAtomic(dir, files, {
    overwrite: model.overwrite,
    obsolete: [shardIndexFile, onnxFile, ...tokenizerFileNames],
  });
}

/** Embeddings are looked up by row, never multiplied, so they stay dense as compressed-tensors leaves them. */
function isSmallerSparse(name: string, shape: readonly number[], data: Float32Array): boolean {
  if (shape.length !== 2 || !name.endsWith(".weight") || name.includes("embeddings.")) return false;
  return bitmaskBytes([shape[0], shape[1]], countNonZeros(data)) < 4 * data.length;
}

/** Fields of `config.json` that say how weights were stored; each save writes its own. */
const compressionFields: readonly string[] = ["quantization_config", "compression_config", "sparsity_config"];

/** The fields of compressed-tensors 0.9, the first version with these key names. */
function compressionConfig(
  targets: readonly string[],
  sparsity: SavedModel["sparsity"],
): Record<string, unknown> {
  return {
    version: "0.9.0",
    quant_method: "compressed-tensors",
    format: "dense",
    quantization_status: "compressed",
    global_compression_ratio: null,
    config_groups: {},
    ignore: [],
    kv_cache_scheme: null,
    sparsity_config: {
      format: "sparse-bitmask",
      targets,
      ignore: [],
      global_sparsity: sparsity?.global ?? 0,
      sparsity_structure: sparsity?.structure ?? "unstructured",
    },
    transform_config: {},
  };
}

async function locateModel(dirOrHubId: string, download: DownloadOptions | undefined): Promise<string> {
  const kind = await pathKind(dirOrHubId);
  if (kind === "folder") return dirOrHubId;
  if (kind === "file") throw new InputError(`${dirOrHubId} is a file, wanted a model folder or a hub id`);
  if (isHubId(dirOrHubId)) return await downloadModel(dirOrHubId, download);
  throw new InputError(
    `There is no folder ${dirOrHubId}, and it is no hub id such as google-bert/bert-base-uncased`,
  );
}

/** Refuses compressions whose numbers would be read wrongly. Old files have the fields at the top level. */
function checkCompression(configJson: Record<string, unknown>, path: string): void {
  const compression = (configJson.quantization_config ?? configJson.compression_config ?? {}) as Record<
    string,
    unknown
  >;
  const method = compression.quant_method ?? "compressed-tensors";
  if (method !== "compressed-tensors") {
    throw new InputError(
      `${path}: quant_method is ${showValue(method)}, wanted "compressed-tensors" or an unquantized model`,
    );
  }
  const sparsity = (compression.sparsity_config ?? configJson.sparsity_config ?? {}) as Record<
    string,
    unknown
  >;
  const formats: [string, unknown][] = [
    ["quantization_config.format", compression.format],
    ["sparsity_config.format", sparsity.format],
  ];
  for (const [field, format] of formats) {
    const known = [undefined, null, "dense", "sparse-bitmask", "sparse_bitmask"];
    if (!known.includes(format as string)) {
      throw new InputError(`${path}: ${field} is ${showValue(format)}, wanted "dense" or "sparse-bitmask"`);
    }
  }
}

async function readTokenizerFiles(dir: string): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  for (const name of tokenizerFileNames) {
    if (await exists(join(dir, name))) files.set(name, await readBytes(join(dir, name)));
  }
  return files;
}

/** Where a tensor lies: a dense tensor's own key, or the prefix of the four keys of a sparse one. */
interface StoredTensor {
  readonly shape: readonly number[];
  readonly dense?: string;
  readonly sparse?: string;
}

async function openTensors(file: SafetensorsFile): Promise<TensorSource> {
  const stored = new Map<string, StoredTensor>();
  const add = (name: string, tensor: StoredTensor) => {
    if (stored.has(name)) {
      throw new InputError(`${file.path} holds ${name} twice, under an old and a new name`);
    }
    stored.set(name, tensor);
  };
  const sparse = bitmaskPrefixes(file);
  const sparseKeys = new Set([...sparse.values()].flatMap(bitmaskKeys));
  const dense = file.names.filter((name) => !sparseKeys.has(name) && !name.endsWith(".position_ids"));
  const rename = canonicalNames([...dense, ...sparse.keys()]);
  for (const name of dense) add(rename(name), { shape: file.info(name).shape, dense: name });
  for (const [name, prefix] of sparse) {
    add(rename(name), { shape: await readBitmaskShape(file, prefix), sparse: prefix });
  }
  return new StoredTensors(file, stored);
}

/** Maps names of a bare `BertModel` and of the TensorFlow era to those of `BertForSequenceClassification`. */
function canonicalNames(names: readonly string[]): (name: string) => string {
  const isBare = !names.some((name) => name.startsWith("bert."));
  return (name) => {
    const renamed = name.replace(/\bLayerNorm\.gamma$/, "LayerNorm.weight").replace(
      /\bLayerNorm\.beta$/,
      "LayerNorm.bias",
    );
    return isBare && /^(embeddings|encoder|pooler)\./.test(renamed) ? `bert.${renamed}` : renamed;
  };
}

class StoredTensors implements TensorSource {
  readonly names: readonly string[];
  readonly #file: SafetensorsFile;
  readonly #stored: ReadonlyMap<string, StoredTensor>;

  constructor(file: SafetensorsFile, stored: ReadonlyMap<string, StoredTensor>) {
    this.names = [...stored.keys()];
    this.#file = file;
    this.#stored = stored;
  }

  shape(name: string): readonly number[] | undefined {
    return this.#stored.get(name)?.shape;
  }

  async weight(name: string, shape: readonly number[]): Promise<Float32Array<ArrayBuffer>> {
    const weight = new Float32Array(shape.reduce((product, size) => product * size, 1));
    await this.readWeight(name, shape, weight);
    return weight;
  }

  async readWeight(name: string, shape: readonly number[], target: Float32Array): Promise<void> {
    checkShape(this.#file.path, name, this.shape(name), shape);
    const { dense, sparse } = this.#stored.get(name)!;
    if (dense !== undefined) await this.#file.readFloat32(dense, target);
    else decodeBitmask(await readBitmask(this.#file, sparse!), target);
  }

  async sparse(name: string): Promise<StoredMatrix | undefined> {
    const prefix = this.#stored.get(name)?.sparse;
    return prefix === undefined ? undefined : await openBitmask(this.#file, prefix);
  }

  async location(name: string): Promise<TensorLocation | undefined> {
    const key = this.#stored.get(name)?.dense;
    return key === undefined ? undefined : await this.#file.location(key);
  }
}

function checkShape(
  path: string,
  name: string,
  found: readonly number[] | undefined,
  wanted: readonly number[],
): void {
  if (found === undefined) {
    throw new InputError(`${path}: tensor ${name} is missing, wanted the shape [${wanted}]`);
  }
  if (!sameShape(found, wanted)) {
    throw new InputError(`${path}: tensor ${name} has the shape [${found}], wanted [${wanted}]`);
  }
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((length, axis) => length === b[axis]);
}

/**
 * The weights of a folder as one set of tensors: `model.safetensors`, or the shards that
 * `model.safetensors.index.json` lists.
 * @module
 */
import { join } from "node:path";
import { InputError } from "../core/errors.ts";
import { exists, readJson } from "../core/files.ts";
import { showValue } from "../core/json.ts";
import {
  openSafetensors,
  type SafetensorsFile,
  type TensorInfo,
  type TensorLocation,
} from "./safetensors.ts";

/** Name of the weights when they are one file. */
export const weightsFile = "model.safetensors";

/** Name of the list of shards when they are several. */
export const shardIndexFile = "model.safetensors.index.json";

/**
 * Opens the safetensors weights of a folder; the single file wins where both are there, as in Hugging Face's loader.
 * @throws InputError when there are none, or a shard does not hold what the index promises.
 */
export async function openWeights(folder: string): Promise<SafetensorsFile> {
  if (await exists(join(folder, weightsFile))) return await openSafetensors(join(folder, weightsFile));
  if (await exists(join(folder, shardIndexFile))) return await openShards(folder);
  const pickled = await exists(join(folder, "pytorch_model.bin"));
  throw new InputError(
    pickled
      ? `${folder} holds pytorch_model.bin only, wanted ${weightsFile}: save the model in safetensors format first`
      : `${folder} holds no weights, wanted ${weightsFile} or ${shardIndexFile}`,
  );
}

async function openShards(folder: string): Promise<SafetensorsFile> {
  const indexPath = join(folder, shardIndexFile);
  const files = new Map<string, SafetensorsFile>();
  const shardOf = new Map<string, SafetensorsFile>();
  for (const [name, fileName] of readWeightMap(await readJson(indexPath), indexPath)) {
    const shard = files.get(fileName) ?? await openSafetensors(join(folder, fileName));
    files.set(fileName, shard);
    if (!shard.has(name)) {
      throw new InputError(
        `${indexPath} places tensor ${showValue(name)} in ${fileName}, which does not have it`,
      );
    }
    shardOf.set(name, shard);
  }
  return new Shards(indexPath, shardOf);
}

function readWeightMap(index: unknown, path: string): [string, string][] {
  const map = (index as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw new InputError(`${path} has no weight_map, wanted an object from tensor name to file name`);
  }
  return Object.entries(map).map(([name, fileName]) => {
    // An index from outside must not reach files outside its folder.
    if (typeof fileName !== "string" || !/^[\w-][\w.-]*\.safetensors$/.test(fileName)) {
      throw new InputError(
        `${path}: weight_map has ${showValue(fileName)} for ${showValue(name)}, ` +
          "wanted the name of a safetensors file",
      );
    }
    return [name, fileName];
  });
}

class Shards implements SafetensorsFile {
  readonly metadata: Readonly<Record<string, string>> = {};
  readonly names: readonly string[];
  readonly #shardOf: ReadonlyMap<string, SafetensorsFile>;

  constructor(readonly path: string, shardOf: ReadonlyMap<string, SafetensorsFile>) {
    this.names = [...shardOf.keys()];
    this.#shardOf = shardOf;
  }

  has(name: string): boolean {
    return this.#shardOf.has(name);
  }

  info(name: string): TensorInfo {
    return this.#shard(name).info(name);
  }

  async bytes(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return await this.#shard(name).bytes(name);
  }

  async float32(name: string): Promise<Float32Array<ArrayBuffer>> {
    return await this.#shard(name).float32(name);
  }

  async readFloat32(name: string, target: Float32Array): Promise<void> {
    await this.#shard(name).readFloat32(name, target);
  }

  async integers(name: string): Promise<number[]> {
    return await this.#shard(name).integers(name);
  }

  async location(name: string): Promise<TensorLocation> {
    return await this.#shard(name).location(name);
  }

  #shard(name: string): SafetensorsFile {
    const shard = this.#shardOf.get(name);
    if (shard === undefined) throw new InputError(`${this.path} has no tensor ${name}`);
    return shard;
  }
}

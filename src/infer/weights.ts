/**
 * The weights of a session in the form the kernels read: linear layers packed sparse where that is faster, the rest
 * dense.
 *
 * They are surveyed first, which reads only what tells their sizes, and written once there is an arena: one tensor
 * after the other straight from the file into its place, so that no second copy of the model ever exists. Workers then
 * put the values of sparse layers in the order of the kernels, a layer each at a time.
 * @module
 */
import { bertTensorShapes } from "../../models/config.ts";
import { countBlocks, encodeBitmask, type StoredMatrix } from "../checkpoint/sparse_bitmask.ts";
import type { Model, TensorSource } from "../checkpoint/model_folder.ts";
import type { TensorLocation } from "../checkpoint/safetensors.ts";
import { type PackedStructure, structureOfBitmask } from "../kernels/sparse_matmul/pack.ts";
import { Scratch } from "../core/scratch.ts";
import { canMapFiles, mapFile, mappingGrain } from "../machines/file_mapping.ts";
import type { Allocator, Arena } from "../plan/arena.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import type { KernelChooser, PrunedMatrix } from "./choice.ts";
import type { PackRequest } from "./pack_task.ts";

/** How one linear layer runs. */
export interface LayerChoice {
  /** Checkpoint name of the weight. */
  readonly name: string;
  /** Outputs. */
  readonly rows: number;
  /** Inputs. */
  readonly columns: number;
  /** Share of zeros. */
  readonly sparsity: number;
  /** What multiplies by it. */
  readonly kernel: "dense" | "unstructured" | "4x1";
  /** Why. */
  readonly reason: string;
  /** Bytes the kernel reads. */
  readonly weightBytes: number;
}

/** Weights whose sizes are known and whose bytes are still in the file. */
export interface SurveyedWeights {
  /** Bytes of each weight, by checkpoint name. */
  readonly byteLengths: ReadonlyMap<string, number>;
  /** Structure of the layers that run sparse, by weight name. */
  readonly structures: ReadonlyMap<string, PackedStructure>;
  readonly layers: readonly LayerChoice[];
  /** Bytes of all weights. */
  readonly totalBytes: number;
  /** Takes memory for each weight; gives the addresses by name. */
  place(allocator: Allocator): Map<string, number>;
  /**
   * Reads all weights to the places that `place` gave. Those of sparse layers are not in order before the requests
   * that this gives are performed. To be called once.
   */
  read(arena: Arena, addresses: ReadonlyMap<string, number>): Promise<PackRequest[]>;
}

/** A 4×1 block holds up to four weights; a matrix counts as pruned in blocks when they are this full on average. */
const blockFill = 0.9;

const denseChoice = { kernel: "dense", blocking: undefined, reason: "dense was asked for" } as const;

/** Dense tensors of this size are mapped where the system can: below, a mapping costs more than reading. */
const mappedBytes = 2 ** 20;

/** One tensor between file and arena. */
interface Weight {
  readonly byteLength: number;
  /** Where it is in the file, if its bytes can be mapped as they are. */
  readonly location?: TensorLocation;
  /** Brings it to its place; gives what is left to be done to it there. */
  read(arena: Arena, address: number): Promise<PackRequest | void>;
}

/** How the weights will be used. */
export interface SurveyOptions {
  /** Chooses how the prunable layers run; absent: all run dense. */
  readonly choose?: KernelChooser;
}

/** Reads the sizes of all weights of a model and chooses a kernel for each prunable layer. */
export async function surveyWeights(model: Model, { choose }: SurveyOptions): Promise<SurveyedWeights> {
  const matrices = new Map<string, PrunedMatrix>();
  const scratch = new Scratch();
  const shapes = bertTensorShapes(model.config);
  for (const [name, shape] of shapes) {
    if (!isPrunable(name)) continue;
    const [rows, depth] = shape;
    const stored = await model.tensors.sparse(name) ??
      await withoutZeros(model.tensors, name, [rows, depth], scratch);
    const { nonZeros } = stored;
    const pattern = nonZeros >= blockFill * 4 * countBlocks(stored) ? "4x1" : "unstructured";
    matrices.set(name, { profile: { pattern, rows, depth, density: nonZeros / (rows * depth) }, stored });
  }
  const choices = await choose?.([...matrices.values()]);

  const weights = new Map<string, Weight>();
  const structures = new Map<string, PackedStructure>();
  const layers: LayerChoice[] = [];
  for (const [name, shape] of shapes) {
    const matrix = matrices.get(name);
    if (!matrix) {
      weights.set(name, await denseWeight(model.tensors, name, shape));
      continue;
    }
    const { profile: { rows, depth, density }, stored } = matrix;
    const { kernel, blocking, reason } = choices?.[layers.length] ?? denseChoice;
    if (kernel === "dense") {
      weights.set(name, await denseWeight(model.tensors, name, shape));
    } else {
      const structure = structureOfBitmask(stored, { pattern: kernel, ...blocking });
      structures.set(name, structure);
      weights.set(name, sparseWeight(stored, structure));
    }
    layers.push({
      name,
      rows,
      columns: depth,
      sparsity: 1 - density,
      kernel,
      reason,
      weightBytes: weights.get(name)!.byteLength,
    });
  }
  const byteLengths = new Map(Array.from(weights, ([name, { byteLength }]) => [name, byteLength]));
  return {
    byteLengths,
    structures,
    layers,
    totalBytes: byteLengths.values().reduce((sum, bytes) => sum + bytes, 0),
    place: (allocator) =>
      new Map(Array.from(weights, ([name, each]) => [name, place(name, each, allocator)])),
    async read(arena, addresses) {
      const requests: PackRequest[] = [];
      for (const [name, weight] of weights) {
        const request = await weight.read(arena, addresses.get(name)!);
        if (request) requests.push(request);
      }
      weights.clear(); // The bits of the sparse layers are not needed any more.
      return requests;
    },
  };
}

function place(name: string, { byteLength, location }: Weight, allocator: Allocator): number {
  if (!location) return allocator.allocate(byteLength, name);
  const skew = location.offsetBytes % mappingGrain;
  const grains = Math.ceil((skew + byteLength) / mappingGrain);
  return allocator.allocate(grains * mappingGrain, name, mappingGrain) + skew;
}

async function denseWeight(tensors: TensorSource, name: string, shape: readonly number[]): Promise<Weight> {
  const length = shape.reduce((product, size) => product * size, 1);
  const isLarge = 4 * length >= mappedBytes && canMapFiles();
  const stored = isLarge ? await tensors.location(name) : undefined;
  const location = stored?.dtype === "F32" && stored.offsetBytes % 4 === 0 ? stored : undefined;
  return {
    byteLength: 4 * length,
    location,
    async read(arena, address) {
      if (location && mapFile(arena.memory, address, location.path, location)) return;
      await tensors.readWeight(name, shape, arena.float32(address, length));
    },
  };
}

function sparseWeight(matrix: StoredMatrix, structure: PackedStructure): Weight {
  const { shape, bitmask, nonZeros } = matrix;
  return {
    byteLength: structure.byteLength,
    async read(arena, address) {
      await matrix.readValues(arena.float32(address, nonZeros));
      return { shape, bitmask, nonZeros, structure, address };
    },
  };
}

/** A matrix whose zeros are stored, without them. */
async function withoutZeros(
  tensors: TensorSource,
  name: string,
  shape: readonly [rows: number, columns: number],
  scratch: Scratch,
): Promise<StoredMatrix> {
  const weight = scratch.take(shape[0] * shape[1]);
  await tensors.readWeight(name, shape, weight);
  const { bitmask, values } = encodeBitmask(weight, shape);
  return {
    shape,
    bitmask,
    nonZeros: values.length,
    readValues: (target) => Promise.resolve(target.set(values)),
  };
}

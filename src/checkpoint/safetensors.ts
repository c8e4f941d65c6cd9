/**
 * The safetensors file format, read strictly and written as the reference implementation writes it.
 *
 *     8 bytes   length of the header, little-endian
 *     header    JSON: name → { dtype, shape, data_offsets: [begin, end] }, plus "__metadata__": string → string
 *     data      the tensors, row-major, little-endian, back to back without holes
 *
 * A file from outside may lie about all of it. {@link openSafetensors} checks every number against the size of the
 * file before anything is read, so a tensor is either what its header says or an InputError.
 * Format: https://github.com/huggingface/safetensors#format
 * @module
 */
import { InputError } from "../core/errors.ts";
import { diskError, type FileContent, pathKind } from "../core/files.ts";
import { parseJson, showValue } from "../core/json.ts";

/** An element type of the format, by the name the header uses. */
export type SafetensorsDtype =
  | "BOOL"
  | "U8"
  | "I8"
  | "F8_E5M2"
  | "F8_E4M3"
  | "F8_E8M0"
  | "I16"
  | "U16"
  | "F16"
  | "BF16"
  | "I32"
  | "U32"
  | "F32"
  | "F64"
  | "I64"
  | "U64"
  | "C64";

/** Bytes of one element. */
const elementBytes: Readonly<Record<SafetensorsDtype, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  F8_E8M0: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
  C64: 8,
};

/** Order of the tensors in a written file: widest elements first, so that each tensor is aligned to its elements. */
const writeOrder = Object.keys(elementBytes).reverse() as SafetensorsDtype[];

/** Up to here a tensor is read in one go: a page cache gives it in 0.1 ms, a slow disk in some milliseconds. */
const smallTensorBytes = 2 ** 20;

/** The format's own limit, 100 MB. */
const maximumHeaderBytes = 100_000_000;

/** What the header says about one tensor. */
export interface TensorInfo {
  /** Type of the elements. */
  readonly dtype: SafetensorsDtype;
  /** Lengths of the dimensions, outermost first; empty for a scalar. */
  readonly shape: readonly number[];
  /** Where the data begins, in bytes from the start of the file. */
  readonly offsetBytes: number;
  /** Length of the data in bytes. */
  readonly byteLength: number;
}

/** Tensors by name, read from a disk one at a time. */
export interface SafetensorsFile {
  /** Where it is, for messages. */
  readonly path: string;
  /** All tensor names, in the order of the header. */
  readonly names: readonly string[];
  /** Strings of the header's `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Whether there is such a tensor. */
  has(name: string): boolean;
  /** Type and shape. @throws InputError when there is no such tensor. */
  info(name: string): TensorInfo;
  /** The bytes of one tensor; nothing else is read. @throws InputError also when the file changed or is cut short. */
  bytes(name: string): Promise<Uint8Array<ArrayBuffer>>;
  /** One tensor of F64, F32, F16 or BF16 as f32. @throws InputError for other types. */
  float32(name: string): Promise<Float32Array<ArrayBuffer>>;
  /** The same, into memory that exists already (shared memory too) and has the tensor's length. */
  readFloat32(name: string, target: Float32Array): Promise<void>;
  /** One tensor of whole numbers. @throws InputError for other types and for numbers beyond 2^53. */
  integers(name: string): Promise<number[]>;
  /**
   * Where the bytes of a tensor lie, for whoever maps them into memory instead of reading them.
   * @throws InputError when the file is no longer the one that was opened.
   */
  location(name: string): Promise<TensorLocation>;
}

/** A tensor's bytes on the disk. */
export interface TensorLocation extends TensorInfo {
  /** The file. */
  readonly path: string;
}

/**
 * Opens one file: reads and checks its header.
 * @throws InputError naming the file, the tensor, and the number that cannot be true.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  if ((await pathKind(path)) === "folder") {
    throw new InputError(`Cannot read ${path}: it is a folder, wanted a safetensors file`);
  }
  using file = await openFile(path);
  const identity = await identify(file);
  const length = identity.size;
  const bad = (problem: string) => new InputError(`${path} is no valid safetensors file: ${problem}`);
  if (length < 8) throw bad(`it has ${length} bytes, wanted at least 8`);
  const start = new Uint8Array(8);
  await readAt(file, path, 0, start);
  const headerBytes = Number(new DataView(start.buffer).getBigUint64(0, true));
  if (headerBytes > maximumHeaderBytes) {
    throw bad(`its header claims ${headerBytes} bytes, wanted at most ${maximumHeaderBytes}`);
  }
  if (8 + headerBytes > length) {
    throw bad(`its header claims ${headerBytes} bytes, but only ${length - 8} follow: the file is cut short`);
  }
  const json = new Uint8Array(headerBytes);
  await readAt(file, path, 8, json);
  const header = decodeHeader(json, path);
  const tensors = checkTensors(header, 8 + headerBytes, length, bad);
  return new DiskTensors(path, identity, tensors, readMetadata(header, bad));
}

/** A tensor to be written. `data` is asked for when its turn comes, so that tensors need not all exist at once. */
export interface TensorEntry {
  /** Name in the header. */
  readonly name: string;
  /** Element type of `data`. */
  readonly dtype: SafetensorsDtype;
  /** Lengths of the dimensions, outermost first. */
  readonly shape: readonly number[];
  /** The elements, row-major, little-endian. */
  readonly data: () => Uint8Array;
}

/**
 * The content of a safetensors file, for {@link writeFileAtomic} and {@link writeFolderAtomic}. Tensors go in the
 * order of the reference implementation (widest elements first, then by name), whatever their order here, so equal
 * tensors give equal files.
 * @throws RangeError when two tensors share a name, or data does not have the size of its shape: bugs of the caller.
 */
export function safetensorsContent(
  tensors: readonly TensorEntry[],
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): FileContent {
  const sorted = [...tensors].sort((a, b) =>
    writeOrder.indexOf(a.dtype) - writeOrder.indexOf(b.dtype) || (a.name < b.name ? -1 : 1)
  );
  const header = new Map<string, unknown>([["__metadata__", metadata]]);
  let end = 0;
  for (const { name, dtype, shape } of sorted) {
    if (header.has(name)) throw new RangeError(`Cannot write safetensors: the name ${name} is used twice`);
    const begin = end;
    end += sizeOf(dtype, shape);
    header.set(name, { dtype, shape, data_offsets: [begin, end] });
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  // Spaces after the JSON put the first tensor at a multiple of 8 bytes.
  const headerBytes = Math.ceil(json.length / 8) * 8;
  const start = new Uint8Array(8 + headerBytes).fill(0x20);
  new DataView(start.buffer).setBigUint64(0, BigInt(headerBytes), true);
  start.set(json, 8);
  return async (sink) => {
    await sink.write(start);
    for (const { name, dtype, shape, data } of sorted) {
      const bytes = data();
      if (bytes.length !== sizeOf(dtype, shape)) {
        throw new RangeError(
          `Cannot write ${name}: it has ${bytes.length} bytes, wanted ${
            sizeOf(dtype, shape)
          } for ${dtype} [${shape}]`,
        );
      }
      await sink.write(bytes);
    }
  };
}

/** The bytes that typed numbers occupy, without a copy. Typed arrays are little-endian wherever Deno runs. */
export function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function sizeOf(dtype: SafetensorsDtype, shape: readonly number[]): number {
  return shape.reduce((size, length) => size * length, elementBytes[dtype]);
}

/** A file that stays closed between reads: nothing to dispose, and reads may run at the same time. */
class DiskTensors implements SafetensorsFile {
  readonly names: readonly string[];
  readonly #tensors: ReadonlyMap<string, TensorInfo>;
  readonly #identity: FileIdentity;

  constructor(
    readonly path: string,
    identity: FileIdentity,
    tensors: ReadonlyMap<string, TensorInfo>,
    readonly metadata: Readonly<Record<string, string>>,
  ) {
    this.names = [...tensors.keys()];
    this.#tensors = tensors;
    this.#identity = identity;
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  info(name: string): TensorInfo {
    const info = this.#tensors.get(name);
    if (info === undefined) throw new InputError(`${this.path} has no tensor ${name}`);
    return info;
  }

  async bytes(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(this.info(name).byteLength);
    await this.#readInto(name, bytes);
    return bytes;
  }

  async readFloat32(name: string, target: Float32Array): Promise<void> {
    const { dtype, shape } = this.info(name);
    const length = shape.reduce((product, size) => product * size, 1);
    if (target.length !== length) {
      throw new RangeError(`Cannot read ${length} numbers of ${name} into ${target.length}`);
    }
    if (dtype === "F32") await this.#readInto(name, bytesOf(target));
    else target.set(await this.float32(name));
  }

  async location(name: string): Promise<TensorLocation> {
    const info = this.info(name);
    using file = await openFile(this.path);
    this.#checkIdentity(name, await identify(file));
    return { ...info, path: this.path };
  }

  async #readInto(name: string, target: Uint8Array): Promise<void> {
    const { offsetBytes, byteLength } = this.info(name);
    if (byteLength <= smallTensorBytes) {
      // Four round trips to a thread that may wait for the disk take longer than the reading.
      using file = openFileSync(this.path);
      this.#checkIdentity(name, identityOf(file.statSync()));
      return readAtSync(file, this.path, offsetBytes, target);
    }
    using file = await openFile(this.path);
    this.#checkIdentity(name, await identify(file));
    await readAt(file, this.path, offsetBytes, target);
  }

  #checkIdentity(name: string, now: FileIdentity): void {
    const then = this.#identity;
    if (now.size !== then.size || now.modified !== then.modified || now.inode !== then.inode) {
      throw new InputError(`Cannot read ${name} from ${this.path}: the file changed since it was opened`);
    }
  }

  async float32(name: string): Promise<Float32Array<ArrayBuffer>> {
    const { dtype } = this.info(name);
    if (dtype !== "F32" && dtype !== "F64" && dtype !== "F16" && dtype !== "BF16") {
      throw new InputError(
        `${this.path}: tensor ${name} has the type ${dtype}, wanted F32, F16, BF16 or F64`,
      );
    }
    const { buffer } = await this.bytes(name);
    switch (dtype) {
      case "F32":
        return new Float32Array(buffer);
      case "F64":
        return new Float32Array(new Float64Array(buffer));
      case "F16":
        return new Float32Array(new Float16Array(buffer));
      case "BF16":
        return widenBrainFloats(new Uint16Array(buffer));
    }
  }

  async integers(name: string): Promise<number[]> {
    const { dtype } = this.info(name);
    if (dtype !== "I64" && dtype !== "I32") {
      throw new InputError(`${this.path}: tensor ${name} has the type ${dtype}, wanted I64 or I32`);
    }
    const { buffer } = await this.bytes(name);
    const values = Array.from(dtype === "I32" ? new Int32Array(buffer) : joinHalves(new Int32Array(buffer)));
    const unsafe = values.find((value) => !Number.isSafeInteger(value));
    if (unsafe !== undefined) {
      throw new InputError(`${this.path}: tensor ${name} holds ${unsafe}, wanted less than 2^53`);
    }
    return values;
  }
}

/** A bf16 is the upper half of the f32 with the same value. */
function widenBrainFloats(upperHalves: Uint16Array): Float32Array<ArrayBuffer> {
  const bits = new Uint32Array(upperHalves.length);
  for (let i = 0; i < bits.length; i++) bits[i] = upperHalves[i] << 16;
  return new Float32Array(bits.buffer);
}

/** Numbers of i64 words, without a BigInt each. Those beyond 2^53 are rounded, never to less than 2^53. */
function joinHalves(words: Int32Array): Float64Array {
  const values = new Float64Array(words.length / 2);
  for (let i = 0; i < values.length; i++) values[i] = words[2 * i + 1] * 2 ** 32 + (words[2 * i] >>> 0);
  return values;
}

function decodeHeader(bytes: Uint8Array, path: string): Map<string, unknown> {
  const source = `The header of ${path}`;
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new InputError(`${source} is not UTF-8 text`);
  }
  const header = parseJson(text, source, { uniqueKeys: true });
  if (!isObject(header)) throw new InputError(`${source} is not a JSON object`);
  return new Map(Object.entries(header));
}

/** Checks type, shape and place of every tensor; together they must fill the data exactly. */
function checkTensors(
  header: ReadonlyMap<string, unknown>,
  dataStart: number,
  fileBytes: number,
  bad: (problem: string) => InputError,
): Map<string, TensorInfo> {
  const tensors = new Map<string, TensorInfo>();
  const dataBytes = fileBytes - dataStart;
  for (const [name, entry] of header) {
    if (name === "__metadata__") continue;
    const tensor = `tensor ${showValue(name)}`;
    const { dtype, shape, data_offsets: offsets } = isObject(entry) ? entry : {};
    if (typeof dtype !== "string" || !isDtype(dtype)) {
      throw bad(
        `${tensor} has the type ${showValue(dtype)}, wanted one of ${writeOrder.join(", ")}`,
      );
    }
    if (!isCounts(shape)) {
      throw bad(`${tensor} has the shape ${showValue(shape)}, wanted whole numbers ≥ 0`);
    }
    if (!isCounts(offsets) || offsets.length !== 2 || offsets[0] > offsets[1]) {
      throw bad(`${tensor} has the data_offsets ${showValue(offsets)}, wanted [begin, end]`);
    }
    const [begin, end] = offsets;
    const byteLength = sizeOf(dtype, shape);
    if (end - begin !== byteLength) {
      throw bad(
        `${tensor} takes ${byteLength} bytes as ${dtype} ${showValue(shape)}, ` +
          `but its data_offsets span ${end - begin}`,
      );
    }
    if (end > dataBytes) {
      throw bad(
        `${tensor} ends at byte ${end} of the data, which has ${dataBytes}: the file is cut short`,
      );
    }
    tensors.set(name, { dtype, shape, offsetBytes: dataStart + begin, byteLength });
  }
  checkContiguous(tensors, dataStart, fileBytes, bad);
  return tensors;
}

function checkContiguous(
  tensors: ReadonlyMap<string, TensorInfo>,
  dataStart: number,
  fileBytes: number,
  bad: (problem: string) => InputError,
): void {
  const inOrder = [...tensors].sort(([, a], [, b]) =>
    a.offsetBytes - b.offsetBytes || a.byteLength - b.byteLength
  );
  let end = dataStart;
  for (const [name, { offsetBytes, byteLength }] of inOrder) {
    if (offsetBytes !== end) {
      const problem = offsetBytes < end ? "overlaps the tensor before it" : "leaves a hole before it";
      throw bad(
        `tensor ${showValue(name)} begins at byte ${offsetBytes - dataStart} and ${problem}, wanted ${
          end - dataStart
        }`,
      );
    }
    end += byteLength;
  }
  if (end !== fileBytes) throw bad(`${fileBytes - end} bytes at its end belong to no tensor`);
}

function readMetadata(
  header: ReadonlyMap<string, unknown>,
  bad: (problem: string) => InputError,
): Record<string, string> {
  const metadata = header.get("__metadata__") ?? {};
  if (!isObject(metadata)) throw bad("__metadata__ is not an object");
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== "string") {
      throw bad(`__metadata__ has ${showValue(value)} for ${showValue(key)}, wanted a string`);
    }
  }
  return metadata as Record<string, string>;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isDtype(name: string): name is SafetensorsDtype {
  return Object.hasOwn(elementBytes, name);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((count) => Number.isSafeInteger(count) && count >= 0);
}

/** What tells a file from another one that took its name. */
interface FileIdentity {
  readonly size: number;
  readonly modified: number | undefined;
  readonly inode: number | null;
}

async function identify(file: Deno.FsFile): Promise<FileIdentity> {
  return identityOf(await file.stat());
}

function identityOf({ size, mtime, ino }: Deno.FileInfo): FileIdentity {
  return { size, modified: mtime?.getTime(), inode: ino };
}

async function openFile(path: string): Promise<Deno.FsFile> {
  try {
    return await Deno.open(path);
  } catch (error) {
    throw diskError("read", path, error);
  }
}

function openFileSync(path: string): Deno.FsFile {
  try {
    return Deno.openSync(path);
  } catch (error) {
    throw diskError("read", path, error);
  }
}

/** Fills `target` from the file. */
async function readAt(
  file: Deno.FsFile,
  path: string,
  offsetBytes: number,
  target: Uint8Array,
): Promise<void> {
  try {
    await file.seek(offsetBytes, Deno.SeekMode.Start);
    for (let done = 0; done < target.length;) {
      done += checkCount(await file.read(target.subarray(done)), path, offsetBytes + target.length);
    }
  } catch (error) {
    throw error instanceof InputError ? error : diskError("read", path, error);
  }
}

function readAtSync(file: Deno.FsFile, path: string, offsetBytes: number, target: Uint8Array): void {
  try {
    file.seekSync(offsetBytes, Deno.SeekMode.Start);
    for (let done = 0; done < target.length;) {
      done += checkCount(file.readSync(target.subarray(done)), path, offsetBytes + target.length);
    }
  } catch (error) {
    throw error instanceof InputError ? error : diskError("read", path, error);
  }
}

function checkCount(count: number | null, path: string, endBytes: number): number {
  if (count === null) throw new InputError(`Cannot read ${path}: it ends before byte ${endBytes}`);
  return count;
}

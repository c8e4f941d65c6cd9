/**
 * Files that are either whole or not there.
 *
 * Everything is written under a temporary name in the same folder, synced, then renamed; the old content stays
 * until the new one is safe, whatever fails on the way. What the operating system refuses (disk full, read-only,
 * no permission) becomes one line that names the path and the reason.
 * @module
 */
import { basename, dirname, join } from "node:path";
import { errorMessage, InputError } from "./errors.ts";
import { parseJson } from "./json.ts";

/** Takes the bytes of a file one piece after the other. */
export interface FileSink {
  /** Appends; resolves when the operating system has taken all of the bytes. */
  write(bytes: Uint8Array): Promise<void>;
}

/** What goes into a file: text, bytes, or a function that writes it piece by piece. */
export type FileContent = string | Uint8Array | ((sink: FileSink) => Promise<void>);

/** A file being written. */
export interface DiskFile {
  /** Writes some of the bytes and returns how many. */
  write(bytes: Uint8Array): Promise<number>;
  /** Waits until the content is on the medium. */
  sync(): Promise<void>;
  /** Frees the descriptor. */
  close(): void;
}

/** The few calls that change a disk. Tests hand in one that fails at a chosen call. */
export interface Disk {
  /** Makes a folder whose parent exists. */
  makeFolder(path: string): Promise<void>;
  /** Creates a file that does not exist yet. */
  create(path: string): Promise<DiskFile>;
  /** Renames within a folder; an existing target is replaced in one step. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file or an empty folder. */
  remove(path: string): Promise<void>;
  /** Makes renames durable. */
  syncFolder(path: string): Promise<void>;
}

/** The disk of this machine. */
export const localDisk: Disk = {
  makeFolder: (path) => Deno.mkdir(path),
  create: (path) => Deno.open(path, { write: true, createNew: true }),
  rename: (from, to) => Deno.rename(from, to),
  remove: (path) => Deno.remove(path),
  async syncFolder(path) {
    let folder: Deno.FsFile;
    try {
      folder = await Deno.open(path);
    } catch {
      // Windows cannot open folders, and a run may have been given write access only. The files themselves are
      // synced by now, so all that is at stake is which name a power cut would leave them under.
      return;
    }
    using _ = folder;
    try {
      await folder.sync();
    } catch (error) {
      // Some network and user-space file systems have no such call for folders.
      if (!(error instanceof Error && "code" in error && error.code === "EINVAL")) throw error;
    }
  },
};

/**
 * Replaces or creates one file. After a failure the old content is untouched and no temporary file is left; only
 * when the very last step fails, making the rename durable, is the new content in place already.
 * @throws InputError naming path and reason when the disk refuses; what `content` itself throws passes through.
 */
export async function writeFileAtomic(
  path: string,
  content: FileContent,
  disk: Disk = localDisk,
): Promise<void> {
  const temporary = temporaryName(path, "tmp");
  try {
    await writeWhole(temporary, path, content, disk);
    await onDisk("write", path, disk.rename(temporary, path));
  } catch (error) {
    await removeQuietly(temporary, disk);
    throw error;
  }
  await onDisk("write", path, disk.syncFolder(dirname(path)));
}

/** Settings of {@link writeFolderAtomic}. */
export interface WriteFolderOptions {
  /** Replace the model that the folder holds. */
  readonly overwrite?: boolean;
  /** Files of an earlier model that go when the new ones come, unless `files` has them. */
  readonly obsolete?: readonly string[];
  /** For tests. */
  readonly disk?: Disk;
}

/**
 * Writes the files of a model folder as one step: all of them under temporary names first, then the renames, in
 * the order given. When anything fails, every old file is back under its name. A process killed between the
 * renames leaves only whole files; `config.json`, which makes a folder a model, is renamed last.
 * @param files Content by name; a name may hold folders (`onnx/model.onnx`).
 * @throws InputError when the folder already holds a model and `overwrite` is not set, or when the disk refuses.
 */
export async function writeFolderAtomic(
  folder: string,
  files: ReadonlyMap<string, FileContent>,
  options: WriteFolderOptions = {},
): Promise<void> {
  const disk = options.disk ?? localDisk;
  await checkOutputFolder(folder, options);
  const names = [...files.keys()].sort((a, b) => Number(a === "config.json") - Number(b === "config.json"));
  const folders = [...new Set(names.map((name) => dirname(join(folder, name))))];
  /** How to take back what was done so far, latest last. */
  const undo: (() => Promise<void>)[] = [];
  /** Old files out of the way: removed once everything is in place. */
  const replaced: string[] = [];
  try {
    for (const path of folders) await makeFolders(path, disk, undo);
    const temporaries = new Map<string, string>();
    for (const name of names) {
      const path = join(folder, name);
      const temporary = temporaryName(path, "tmp");
      undo.push(() => removeQuietly(temporary, disk));
      await writeWhole(temporary, path, files.get(name)!, disk);
      temporaries.set(path, temporary);
    }
    const obsolete = (options.obsolete ?? []).filter((name) => !files.has(name));
    for (const path of [...obsolete, ...names].map((name) => join(folder, name))) {
      const temporary = temporaries.get(path);
      if (await exists(path)) {
        const old = temporaryName(path, "old");
        await onDisk("replace", path, disk.rename(path, old));
        undo.push(() => disk.rename(old, path));
        replaced.push(old);
      }
      if (temporary !== undefined) {
        await onDisk("write", path, disk.rename(temporary, path));
        undo.push(() => removeQuietly(path, disk));
      }
    }
    for (const path of folders) await onDisk("write", path, disk.syncFolder(path));
  } catch (error) {
    for (const step of undo.reverse()) await step();
    throw error;
  }
  for (const old of replaced) await onDisk("remove", old, disk.remove(old));
}

/**
 * Refuses a folder that must not be written to. Commands call it before hours of work, not only after.
 * @throws InputError when `folder` holds a model and `overwrite` is not set, or is not a folder.
 */
export async function checkOutputFolder(
  folder: string,
  options: { overwrite?: boolean } = {},
): Promise<void> {
  const kind = await pathKind(folder);
  if (kind === "file") throw new InputError(`Cannot write to ${folder}: it is a file, wanted a folder`);
  if (kind === undefined || options.overwrite) return;
  for (const name of ["config.json", "model.safetensors"]) {
    if (await exists(join(folder, name))) {
      throw new InputError(`${folder} already holds a model (${name}): pass --overwrite or another --out`);
    }
  }
}

/** Makes a folder and those above it, where they are missing. @throws InputError naming path and reason. */
export function ensureFolder(path: string): Promise<void> {
  return onDisk("make", path, Deno.mkdir(path, { recursive: true }));
}

/** Reads a whole file. @throws InputError naming path and reason. */
export function readBytes(path: string): Promise<Uint8Array<ArrayBuffer>> {
  return onDisk("read", path, Deno.readFile(path));
}

/** Reads a UTF-8 text. @throws InputError naming path and reason, also for bytes that are not UTF-8. */
export async function readText(path: string): Promise<string> {
  const bytes = await readBytes(path);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new InputError(`Cannot read ${path}: it is not UTF-8 text`);
  }
}

/** Reads JSON. @throws InputError naming path, line and column. */
export async function readJson(path: string): Promise<unknown> {
  return parseJson(await readText(path), path);
}

/** Whether a path is a folder or anything else, or is not there. @throws InputError when it cannot be looked at. */
export async function pathKind(path: string): Promise<"folder" | "file" | undefined> {
  try {
    return (await Deno.stat(path)).isDirectory ? "folder" : "file";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw diskError("read", path, error);
  }
}

/** Whether anything is there. */
export async function exists(path: string): Promise<boolean> {
  return (await pathKind(path)) !== undefined;
}

/** Words for the refusals a user can act on; the rest keep the words of the operating system. */
const reasons: Readonly<Record<string, string>> = {
  ENOSPC: "no space left on the disk",
  EDQUOT: "the disk quota is used up",
  EFBIG: "the file is larger than this system allows",
  EROFS: "the file system is read-only",
  EACCES: "permission denied",
  EPERM: "permission denied",
  ENOENT: "no such file or folder",
  ENOTDIR: "a part of the path is not a folder",
  EISDIR: "it is a folder, wanted a file",
  ENAMETOOLONG: "the name is too long",
  EMFILE: "too many open files",
};

/** The one-line error for a failed call on `path`: `Cannot write model/config.json: no space left on the disk`. */
export function diskError(action: string, path: string, error: unknown): InputError {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const reason = reasons[code] ?? errorMessage(error).replace(/ \(os error \d+\).*$/, "");
  return new InputError(`Cannot ${action} ${path}: ${reason}`, { cause: error });
}

async function onDisk<T>(action: string, path: string, call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    throw diskError(action, path, error);
  }
}

/**
 * Removes what writers that were killed left in a folder: temporary files, and old files that were about to go. Call
 * it only where nobody else writes. A folder that is not there holds nothing.
 */
export async function removeLeftovers(folder: string): Promise<void> {
  if (await pathKind(folder) !== "folder") return;
  for (const { name, isFile } of await onDisk("read", folder, Array.fromAsync(Deno.readDir(folder)))) {
    if (!isFile || !temporaryPattern.test(name)) continue;
    const path = join(folder, name);
    await onDisk("remove", path, localDisk.remove(path));
  }
}

/** What {@link temporaryName} makes. */
const temporaryPattern = /^\..+\.[0-9a-f]{8}\.(tmp|old)$/;

/** Hidden, in the same folder, different for every writer: `.config.json.5f3a….tmp`. */
function temporaryName(path: string, extension: string): string {
  return join(dirname(path), `.${basename(path)}.${crypto.randomUUID().slice(0, 8)}.${extension}`);
}

/** Writes and syncs a new file. Errors name `path`, the file the user asked for. */
async function writeWhole(temporary: string, path: string, content: FileContent, disk: Disk): Promise<void> {
  const file = await onDisk("write", path, disk.create(temporary));
  try {
    const sink: FileSink = {
      async write(bytes) {
        for (let done = 0; done < bytes.length;) {
          done += await onDisk("write", path, file.write(bytes.subarray(done)));
        }
      },
    };
    if (typeof content === "function") await content(sink);
    else await sink.write(typeof content === "string" ? new TextEncoder().encode(content) : content);
    await onDisk("write", path, file.sync());
  } finally {
    file.close();
  }
}

async function makeFolders(path: string, disk: Disk, undo: (() => Promise<void>)[]): Promise<void> {
  if ((await pathKind(path)) === "folder") return;
  if (dirname(path) !== path) await makeFolders(dirname(path), disk, undo);
  await onDisk("make", path, disk.makeFolder(path));
  undo.push(() => removeQuietly(path, disk));
}

/** For clean-up after an error, which is the one worth reporting. */
async function removeQuietly(path: string, disk: Disk): Promise<void> {
  try {
    await disk.remove(path);
  } catch {
    // Never created, or already renamed; where the disk itself is gone nothing more can be done.
  }
}

/**
 * Shared objects that exist only in memory: written to an anonymous file (`memfd_create`), sealed, opened by the
 * dynamic loader.
 *
 * Every thread of the process can open the same file by its path. Code stays mapped and descriptors stay open until the
 * process ends, on purpose: linked functions may be called at any time, and a loader that finds a path it knows gives
 * back the library it has, so a path must never come to mean another file. Deno's handles are closed at once all the
 * same: they own nothing the functions need, and one left open counts as a leak in tests.
 * @module
 */
import { UnsupportedError } from "../core/errors.ts";

const closeOnExec = 1;
const allowSealing = 2;
const addSeals = 1033;
/** No more seals, shrinking, growing or writing. */
const allSeals = 1 | 2 | 4 | 8;

/** The process itself needs the C library: it is never unloaded. */
function openLibc() {
  return openSharedObject("libc.so.6", {
    memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
    write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
    fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  });
}

let libc: ReturnType<typeof openLibc> | undefined;

/**
 * Puts a shared object into an anonymous file that nobody can change any more. Gives its path, good for this process.
 * Throws an UnsupportedError when the system refuses.
 */
export function publishSharedObject(name: string, image: Uint8Array<ArrayBuffer>): string {
  libc ??= openLibc();
  const { memfd_create, write, fcntl } = libc;
  const descriptor = memfd_create(new TextEncoder().encode(`${name}\0`), closeOnExec | allowSealing);
  if (descriptor < 0) throw new UnsupportedError("Cannot make a file in memory: memfd_create failed");
  for (let done = 0; done < image.length;) {
    const count = Number(write(descriptor, image.subarray(done), BigInt(image.length - done)));
    if (count <= 0) {
      throw new UnsupportedError(`Cannot write ${image.length} bytes of code to a file in memory`);
    }
    done += count;
  }
  if (fcntl(descriptor, addSeals, allSeals) < 0) {
    throw new UnsupportedError("Cannot seal code in a file in memory: fcntl failed");
  }
  return `/proc/self/fd/${descriptor}`;
}

/** The functions of a library that closing does not unload: a published shared object, or the C library. */
export function openSharedObject<const S extends Deno.ForeignLibraryInterface>(
  path: string,
  symbols: S,
): Deno.DynamicLibrary<S>["symbols"] {
  const library = Deno.dlopen(path, symbols);
  const functions = library.symbols;
  library.close();
  return functions;
}

/**
 * Pages of a file in place of pages of an arena: large tensors need no reading and no memory of their own, and only
 * the parts that are looked at are ever fetched.
 *
 * The mapping is private: what is written to the arena never reaches the file. It ends with the arena. A file that is
 * replaced (new content under the old name, as this project writes) goes on existing for the mapping; one that another
 * program cuts short while it is mapped ends the process, as with every program that maps files.
 * @module
 */

/** A multiple of the page size of any Linux: 4 KiB on x86-64, up to 64 KiB on others. */
export const mappingGrain = 65536;

const readOnlyCloseOnExec = 0x80000;
const readWrite = 1 | 2;
const privateMapping = 2;
const mayMoveTo = 1 | 2;

function openLibc() {
  return Deno.dlopen("libc.so.6", {
    open: { parameters: ["buffer", "i32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
    mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"], result: "isize" },
    mremap: { parameters: ["isize", "usize", "usize", "i32", "pointer"], result: "isize" },
    munmap: { parameters: ["isize", "usize"], result: "i32" },
  });
}

/** Whether `mapFile` can work here: 64-bit Linux with `--allow-ffi`. */
export function canMapFiles(): boolean {
  return Deno.build.os === "linux" && Deno.permissions.querySync({ name: "ffi" }).state === "granted";
}

/**
 * Puts `byteLength` bytes of a file, from `offsetBytes` on, at `address` of an arena. Both must have the same distance
 * from a multiple of `mappingGrain`, and the whole grains that the range touches must be free: they show the file's
 * neighbouring bytes, or zeros beyond its end. False, with nothing changed, when the system cannot map that file.
 */
export function mapFile(
  memory: WebAssembly.Memory,
  address: number,
  path: string,
  { offsetBytes, byteLength }: { readonly offsetBytes: number; readonly byteLength: number },
): boolean {
  const skew = offsetBytes % mappingGrain;
  if (address % mappingGrain !== skew) {
    throw new RangeError(
      `Cannot map byte ${offsetBytes} of a file at address ${address}: wanted equal skews`,
    );
  }
  if (!canMapFiles()) return false;
  let libc: ReturnType<typeof openLibc>;
  try {
    libc = openLibc();
  } catch {
    return false; // Another C library than GNU's.
  }
  const { open, close, mmap, mremap, munmap } = libc.symbols;
  const descriptor = open(new TextEncoder().encode(`${path}\0`), readOnlyCloseOnExec);
  try {
    if (descriptor < 0) return false;
    const length = BigInt(skew + byteLength);
    // A file that cannot be mapped must not cost the arena its pages: first anywhere, then moved into place.
    const found = mmap(null, length, readWrite, privateMapping, descriptor, BigInt(offsetBytes - skew));
    if (found === -1n) return false;
    const target = Deno.UnsafePointer.of(new Uint8Array(memory.buffer, address - skew));
    if (mremap(found, length, length, mayMoveTo, target) === -1n) {
      munmap(found, length);
      return false;
    }
    return true;
  } finally {
    if (descriptor >= 0) close(descriptor);
    libc.close();
  }
}

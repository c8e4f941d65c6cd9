/**
 * Keeping a thread on one core, by libc's `sched_setaffinity`: Linux, with `--allow-ffi`.
 *
 * Not the default. On a quiet machine it changed nothing (MiniLM of 90 % zeros, 128 tokens, 2 workers on 2 cores: least
 * call 3.54 ms pinned, 3.57 ms free; one worker 6.35 and 6.40 ms). On a busy one it keeps workers from sharing a core
 * (10th percentile 3.8 instead of 6.9 ms), but they cannot step aside either: mean 17.5 instead of 9.0 ms. And two
 * pools of one process, or two processes, would pin themselves to the same cores. Use it where the cores are one
 * pool's own.
 * @module
 */
import { openSharedObject } from "../src/machines/native_loader.ts";

/** Bytes of an affinity mask: 1024 processors, the size of libc's own type. */
const maskBytes = 128;

const affinity = { parameters: ["i32", "usize", "buffer"], result: "i32" } as const;

function openLibc() {
  return openSharedObject("libc.so.6", { sched_getaffinity: affinity, sched_setaffinity: affinity });
}

/** Runs `use` with libc, or gives undefined where there is none that may be called. */
function withLibc<T>(use: (libc: ReturnType<typeof openLibc>) => T): T | undefined {
  if (Deno.build.os !== "linux" || Deno.permissions.querySync({ name: "ffi" }).state !== "granted") {
    return undefined;
  }
  try {
    return use(openLibc());
  } catch {
    return undefined; // Another libc than glibc: pinning is a favour, not a need.
  }
}

/** The processors the calling thread may run on, or none when that cannot be asked. */
export function allowedCores(): readonly number[] {
  const cores = withLibc(({ sched_getaffinity }) => {
    const mask = new Uint8Array(maskBytes);
    if (sched_getaffinity(0, BigInt(maskBytes), mask) < 0) return [];
    return Array.from({ length: maskBytes * 8 }, (_, core) => core)
      .filter((core) => (mask[core >> 3] >> (core & 7) & 1) === 1);
  });
  return cores ?? [];
}

/** Keeps the calling thread on one core. False when the system does not allow it. */
export function pinThread(core: number): boolean {
  const pinned = withLibc(({ sched_setaffinity }) => {
    const mask = new Uint8Array(maskBytes);
    mask[core >> 3] = 1 << (core & 7);
    return sched_setaffinity(0, BigInt(maskBytes), mask) === 0;
  });
  return pinned ?? false;
}

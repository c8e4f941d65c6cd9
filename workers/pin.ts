/**
 * Keeping a thread on one core, by libc's `sched_setaffinity`: Linux, with `--allow-ffi`.
 *
 * Not the default. MiniLM of 90 % zeros, 2 workers on 2 cores that other programs use too, ms a call:
 *
 * | tokens | workers | least | 10th percentile | median | mean |
 * | ------ | ------- | ----- | --------------- | ------ | ---- |
 * | 16     | free    | 0.90  | 1.69            | 1.92   | 2.20 |
 * | 16     | pinned  | 0.89  | 0.97            | 1.77   | 4.39 |
 * | 128    | free    | 3.57  | 6.86            | 7.19   | 9.03 |
 * | 128    | pinned  | 3.54  | 3.82            | 12.5   | 17.5 |
 *
 * In quiet moments it changes nothing. In busy ones pinned workers do not end up on the same core, but they cannot step
 * aside either. And two pools of one process, or two processes, would pin themselves to the same cores. Use it where
 * the cores are one pool's own.
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

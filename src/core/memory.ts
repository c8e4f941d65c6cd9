/**
 * How much memory there is.
 * @module
 */
import { controlGroups, readSystemFile, type ReadText } from "./cores.ts";

/**
 * Bytes that this process may still take: what the system has, and what its control groups leave; undefined where
 * neither may be asked. (Deno shows control groups with `--allow-all` only.)
 */
export function availableMemoryBytes(): number | undefined {
  const { state } = Deno.permissions.querySync({ name: "sys", kind: "systemMemoryInfo" });
  const candidates = [
    state === "granted" ? Deno.systemMemoryInfo().available : undefined,
    cgroupMemory(readSystemFile),
  ].filter((bytes) => bytes !== undefined);
  return candidates.length > 0 ? Math.min(...candidates) : undefined;
}

/** The least that the process's control groups and all those above them leave of their limits; undefined for none. */
export function cgroupMemory(read: ReadText): number | undefined {
  const left: number[] = [];
  for (const { version, folder } of controlGroups("memory", read)) {
    const [limitName, usedName] = version === 2
      ? ["memory.max", "memory.current"]
      : ["memory.limit_in_bytes", "memory.usage_in_bytes"];
    // `max` gives NaN; without a limit version 1 has a number beyond all memory.
    const limit = Number(read(`${folder}/${limitName}`) ?? NaN);
    const used = Number(read(`${folder}/${usedName}`) ?? NaN);
    if (Number.isFinite(limit - used)) left.push(Math.max(0, limit - used));
  }
  return left.length > 0 ? Math.min(...left) : undefined;
}

/** `1.5 GiB`, `320 MiB`. */
export function formatBytes(bytes: number): string {
  return bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : `${Math.ceil(bytes / 2 ** 20)} MiB`;
}

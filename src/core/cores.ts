/**
 * How many cores this process may use: its affinity mask and its container's quota, not what the machine has.
 *
 * The system's files are read where they may be (`/proc` and `/sys` need `--allow-all`). Elsewhere
 * `navigator.hardwareConcurrency` decides, which counts affinity and quota too but does not say which.
 * @module
 */

/** A number of threads to use, and where it comes from. */
export interface ThreadChoice {
  /** Threads, at least 1. */
  readonly count: number;
  /** For people: `the affinity mask allows 2`. */
  readonly reason: string;
}

/** Where `coresFrom` looks. */
export interface CoreSources {
  /** What the runtime says. */
  readonly hardwareConcurrency: number;
  readonly read: ReadText;
}

/** The content of a system file, or undefined when it is absent or may not be read. */
export type ReadText = (path: string) => string | undefined;

/** The numbers in a list such as `0-3,8` (the kernel's `cpulist`). Empty when the text is none. */
export function parseCpuList(text: string): number[] {
  const cpus: number[] = [];
  for (const range of text.trim().split(",")) {
    const match = range.match(/^(\d+)(?:-(\d+))?$/);
    if (!match) return [];
    for (let cpu = Number(match[1]); cpu <= Number(match[2] ?? match[1]); cpu++) cpus.push(cpu);
  }
  return cpus;
}

/** The processors in the affinity mask of `/proc/self/status`. Empty when it has none. */
export function parseAffinity(status: string): number[] {
  return parseCpuList(status.match(/^Cpus_allowed_list:\s*(\S+)$/m)?.[1] ?? "");
}

/** Cores a control group version 2 grants (`cpu.max`: quota and period in µs), or undefined for no limit. */
export function parseCpuMax(text: string): number | undefined {
  const [quota, period] = text.trim().split(/\s+/);
  return quotaOf(quota, period ?? "100000");
}

function quotaOf(quota: string, period: string): number | undefined {
  const cores = Number(quota) / Number(period); // `max` gives NaN, version 1's −1 a negative number.
  return cores > 0 && Number.isFinite(cores) ? cores : undefined;
}

/** The least quota of the process's control groups and all those above them, in cores; undefined for no limit. */
export function cgroupQuota(read: ReadText): number | undefined {
  const quotas: number[] = [];
  const note = (cores: number | undefined) => cores !== undefined && quotas.push(cores);
  for (const { version, folder } of controlGroups("cpu", read)) {
    if (version === 2) {
      const text = read(`${folder}/cpu.max`);
      if (text !== undefined) note(parseCpuMax(text));
    } else {
      const quota = read(`${folder}/cpu.cfs_quota_us`);
      const period = read(`${folder}/cpu.cfs_period_us`);
      if (quota !== undefined && period !== undefined) note(quotaOf(quota, period));
    }
  }
  return quotas.length > 0 ? Math.min(...quotas) : undefined;
}

/** A control group that limits the process. */
export interface ControlGroup {
  readonly version: 1 | 2;
  readonly folder: string;
}

/** The control groups of the process for a controller, and all those above them. */
export function* controlGroups(controller: string, read: ReadText): Generator<ControlGroup> {
  for (const line of (read("/proc/self/cgroup") ?? "").split("\n")) {
    // `0::/path` is version 2, `4:cpu,cpuacct:/path` version 1.
    const [, controllers, path] = line.match(/^\d+:([^:]*):(\/.*)$/) ?? [];
    if (path === undefined) continue;
    if (controllers === "") {
      for (const group of withParents(path)) yield { version: 2, folder: `/sys/fs/cgroup${group}` };
    } else if (controllers.split(",").includes(controller)) {
      for (const mount of new Set([controllers, controller])) {
        for (const group of withParents(path)) {
          yield { version: 1, folder: `/sys/fs/cgroup/${mount}${group}` };
        }
      }
    }
  }
}

/** `/a/b` gives `/a/b`, `/a` and the root, which is written as nothing. */
function withParents(path: string): string[] {
  const parts = path.split("/").filter((part) => part !== "");
  return Array.from(
    { length: parts.length + 1 },
    (_, dropped) => parts.slice(0, parts.length - dropped).map((part) => `/${part}`).join(""),
  );
}

/** The least of what machine, affinity, quota and runtime allow. A quota is rounded down, to 1 at least. */
export function coresFrom({ hardwareConcurrency, read }: CoreSources): ThreadChoice {
  const candidates: ThreadChoice[] = [];
  const online = parseCpuList(read("/sys/devices/system/cpu/online") ?? "").length;
  if (online > 0) candidates.push({ count: online, reason: "every core of the machine" });
  const affinity = parseAffinity(read("/proc/self/status") ?? "").length;
  if (affinity > 0) candidates.push({ count: affinity, reason: `the affinity mask allows ${affinity}` });
  const quota = cgroupQuota(read);
  if (quota !== undefined) {
    candidates.push({
      count: Math.max(1, Math.floor(quota)),
      reason: `the container's quota is ${Number(quota.toFixed(2))} cores`,
    });
  }
  candidates.push({ count: Math.max(1, hardwareConcurrency), reason: "every core this process may use" });
  return candidates.reduce((least, candidate) => candidate.count < least.count ? candidate : least);
}

/** A file of the system; undefined where there is none, or it may not be read: Deno keeps some for `--allow-all`. */
export function readSystemFile(path: string): string | undefined {
  // Asking would stop a program at a prompt.
  const mayRead = Deno.build.os === "linux" &&
    Deno.permissions.querySync({ name: "read", path }).state === "granted";
  if (!mayRead) return undefined;
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return undefined;
  }
}

/** The cores this process may use, asked anew: a container's quota can change while it runs. */
export function usableCores(): ThreadChoice {
  return coresFrom({ hardwareConcurrency: navigator.hardwareConcurrency, read: readSystemFile });
}

/** The number of threads asked for, or else one for each usable core. */
export function chooseThreads(asked?: number): ThreadChoice {
  const usable = usableCores();
  if (asked === undefined) return usable;
  const excess = asked > usable.count ? `, more than the ${usable.count} usable cores` : "";
  return { count: asked, reason: `as asked${excess}` };
}

/**
 * Where measured choices are kept: a small JSON file in the user's cache folder, a part for each kind of machine.
 * @module
 */
import { dirname, join } from "node:path";
import { ensureFolder, exists, readText, writeFileAtomic } from "../core/files.ts";
import type { Machine } from "../machines/machine.ts";
import { nativeCpu } from "../machines/mod.ts";
import type { TunedChoice } from "./tuning.ts";

/** Keeps what was measured. It is a cache: what cannot be read was never written, what cannot be written is lost. */
export interface TuningStore {
  /** Choices by kind of matrix, for a machine like this. */
  read(machine: Machine): Promise<Readonly<Record<string, TunedChoice>>>;
  /** Adds choices to those stored. */
  write(machine: Machine, choices: Readonly<Record<string, TunedChoice>>): Promise<void>;
}

/** To be raised when kernels change so that what was measured no longer holds. */
const version = 2;

type Choices = Readonly<Record<string, TunedChoice>>;

interface StoredFile {
  readonly version: number;
  readonly machines: Readonly<Record<string, Choices>>;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a choice can be packed by, whoever wrote it. */
function isChoice(value: unknown): value is TunedChoice {
  if (!isRecord(value) || !isRecord(value.blocking)) return false;
  const { kernel, evidence, blocking: { panelInputs, blockRows } } = value;
  const isCount = (count: unknown, most: number) =>
    Number.isInteger(count) && Number(count) > 0 && Number(count) <= most;
  return ["dense", "unstructured", "4x1"].includes(String(kernel)) && typeof evidence === "string" &&
    isCount(panelInputs, 4096) && isCount(blockRows, 256) && Number(blockRows) % 4 === 0;
}

/** A store in that file. */
export function tuningFile(path: string): TuningStore {
  const load = async (): Promise<StoredFile> => {
    const empty: StoredFile = { version, machines: {} };
    try {
      if (!await exists(path)) return empty;
      const stored: unknown = JSON.parse(await readText(path));
      if (!isRecord(stored) || stored.version !== version || !isRecord(stored.machines)) return empty;
      const machines = Object.entries(stored.machines).map(([machine, choices]) => [
        machine,
        Object.fromEntries(Object.entries(choices ?? {}).filter(([, choice]) => isChoice(choice))),
      ]);
      return { version, machines: Object.fromEntries(machines) };
    } catch {
      return empty; // A cache that is damaged or may not be read is an empty one.
    }
  };
  return {
    async read(machine) {
      return (await load()).machines[machineName(machine)] ?? {};
    },
    async write(machine, choices) {
      // Another process may have written meanwhile; of two at once one loses, and measures again.
      const { machines } = await load();
      const name = machineName(machine);
      const merged: StoredFile = {
        version,
        machines: { ...machines, [name]: { ...machines[name], ...choices } },
      };
      try {
        await ensureFolder(dirname(path));
        await writeFileAtomic(path, JSON.stringify(merged, null, 1));
      } catch {
        // No room, or a file system that is read-only: nothing a model needs in order to answer. The next load measures.
      }
    },
  };
}

/** What the speed of kernels depends on: processor, caches, instruction set. */
function machineName({ isa }: Machine): string {
  const cpu = nativeCpu();
  const caches = cpu?.caches.map(({ level, kind, sizeBytes }) => `L${level} ${kind} ${sizeBytes}`) ?? [];
  return [isa, cpu?.name ?? `${Deno.build.arch} ${Deno.build.os}`, ...caches].join(", ");
}

/**
 * The store of this user: `LACUNA_TUNING` names a file, or `off`; otherwise `lacuna/tuning.json` in `XDG_CACHE_HOME` or
 * `~/.cache`. Undefined when it is off or the permissions for environment and file are not granted.
 */
export function userTuning(): TuningStore | undefined {
  const variable = (name: string) =>
    Deno.permissions.querySync({ name: "env", variable: name }).state === "granted"
      ? Deno.env.get(name) || undefined
      : undefined;
  const named = variable("LACUNA_TUNING");
  if (named === "off") return undefined;
  const home = variable("HOME");
  const folder = variable("XDG_CACHE_HOME") ?? (home && join(home, ".cache"));
  const path = named ?? (folder && join(folder, "lacuna", "tuning.json"));
  if (!path) return undefined;
  const isGranted = (["read", "write"] as const).every((name) =>
    Deno.permissions.querySync({ name, path: dirname(path) }).state === "granted"
  );
  return isGranted ? tuningFile(path) : undefined;
}

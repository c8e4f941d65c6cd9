/**
 * The machines of this host, fastest first, and linking of their images.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { CodeImage, LinkedKernel, Machine } from "./machine.ts";
import { linkNative, nativeCpu, nativeMachines, nativeUnavailableReason } from "./native_machine.ts";
import { linkWasm, wasmFeatures, wasmMachine } from "./wasm_machine.ts";

export type { Cache, Cpu } from "./cpu.ts";
export type { CodeImage, LinkedKernel, Machine, NativeImage, WasmImage } from "./machine.ts";
export { nativeCpu, nativeMachine, nativeMachines, nativeUnavailableReason } from "./native_machine.ts";
export { createArenaMemory, type WasmFeatures, wasmFeatures, wasmMachine } from "./wasm_machine.ts";

/** Every machine this host can execute, fastest first: native vectors where they may be loaded, then WebAssembly. */
export function availableMachines(): Machine[] {
  const features = wasmFeatures();
  const machines: Machine[] = nativeMachines();
  if (features.threads && features.relaxedSimd) machines.push(wasmMachine({ relaxed: true }));
  if (features.threads && features.simd) machines.push(wasmMachine({ relaxed: false }));
  return machines;
}

/** The instruction set that the environment variable `LACUNA_ISA` names, where it may be read and is not empty. */
function environmentIsa(): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: "LACUNA_ISA" });
  return state === "granted" ? Deno.env.get("LACUNA_ISA") || undefined : undefined;
}

/**
 * The machine named: `avx512`, `avx2`, `wasm` (the best WebAssembly), `wasm-relaxed-simd`, `wasm-simd`; default: what
 * `LACUNA_ISA` names, or else the fastest. Throws an InputError that lists what this host has, and why it has no native
 * machine if it has none.
 */
export function selectMachine(isa: string | undefined = environmentIsa()): Machine {
  const machines = availableMachines();
  const machine = isa === undefined
    ? machines[0]
    : machines.find((candidate) => candidate.isa === isa || candidate.isa.split("-")[0] === isa);
  if (machine) return machine;
  const known = [...new Set(machines.flatMap(({ isa: name }) => [name.split("-")[0], name]))].join(", ");
  const reason = isa === "avx512" || isa === "avx2" ? nativeUnavailableReason(isa) : undefined;
  throw new InputError(
    `Unknown or unavailable instruction set ${isa ?? "(any)"}: this host has ${known}` +
      (reason ? `; ${reason}` : ""),
  );
}

/** Why kernels run as WebAssembly though nobody asked for it, for the reader; undefined where they do not. */
export function fallbackReason(isa: string | undefined = environmentIsa()): string | undefined {
  const reason = isa === undefined ? nativeUnavailableReason() : undefined;
  return reason && `kernels run as WebAssembly: ${reason}`;
}

/**
 * The first-level data cache of a core, in bytes. Where the processor cannot be asked: 32 KiB, which few have less of.
 */
export function levelOneBytes(): number {
  const first = nativeCpu()?.caches.find(({ level, kind }) => level === 1 && kind === "data");
  return first?.sizeBytes ?? 32 << 10;
}

/** Makes an image callable in this thread. Gives the kernels in the order of `image.keys`. */
export function linkImage(image: CodeImage, memory: WebAssembly.Memory): readonly LinkedKernel[] {
  return image.kind === "wasm" ? linkWasm(image, memory) : linkNative(image, memory);
}

/**
 * A machine that assembles each set of kernels once: for executors on one arena, which can all link the same image.
 */
export function assembleOnce(machine: Machine): Machine {
  const images = new Map<string, CodeImage>();
  return {
    ...machine,
    assemble(kernels) {
      const key = kernels.map((kernel) => kernel.key).join("\n");
      let image = images.get(key);
      if (!image) images.set(key, image = machine.assemble(kernels));
      return image;
    },
  };
}

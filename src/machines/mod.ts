/**
 * The machines of this host, fastest first, and linking of their images.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { CodeImage, LinkedKernel, Machine } from "./machine.ts";
import { linkWasm, wasmFeatures, wasmMachine } from "./wasm_machine.ts";

export type { CodeImage, LinkedKernel, Machine } from "./machine.ts";
export { createArenaMemory, type WasmFeatures, wasmFeatures, wasmMachine } from "./wasm_machine.ts";

/** Every machine this host can execute, fastest first. */
export function availableMachines(): Machine[] {
  const features = wasmFeatures();
  const machines: Machine[] = [];
  if (features.threads && features.relaxedSimd) machines.push(wasmMachine({ relaxed: true }));
  if (features.threads && features.simd) machines.push(wasmMachine({ relaxed: false }));
  return machines;
}

/** The fastest machine, or the one named: `wasm` (the best WebAssembly), `wasm-relaxed-simd`, `wasm-simd`. */
export function selectMachine(isa?: string): Machine {
  const machines = availableMachines();
  const machine = isa === undefined
    ? machines[0]
    : machines.find((candidate) => candidate.isa === isa || candidate.isa.split("-")[0] === isa);
  if (machine) return machine;
  const known = ["wasm", ...machines.map((candidate) => candidate.isa)].join(", ");
  throw new InputError(`Unknown or unavailable instruction set ${isa ?? "(any)"}: this host has ${known}`);
}

/** Makes an image callable in this thread. Gives the kernels in the order of `image.keys`. */
export function linkImage(image: CodeImage, memory: WebAssembly.Memory): readonly LinkedKernel[] {
  return linkWasm(image, memory);
}

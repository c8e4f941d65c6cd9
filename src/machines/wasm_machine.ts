/**
 * WebAssembly as a machine: what this engine supports, the arena's memory, and linking.
 *
 * Linked kernels are exported functions called with the byte offset of their arguments; every worker links the same
 * compiled module against the same shared memory.
 * @module
 */
import { assembleKernel, wasmLanes, wasmVectorRegisters } from "../assemblers/wasm.ts";
import {
  ByteWriter,
  encodeModule,
  type MemoryLimits,
  opcode,
  simd,
  valueType,
  type WasmFunction,
} from "../assemblers/wasm_encoder.ts";
import { InputError } from "../core/errors.ts";
import type { Kernel } from "../kernels/kernel.ts";
import type { CodeImage, LinkedKernel, Machine } from "./machine.ts";

const pageBytes = 65536;
/** Every arena fits: 65536 pages are the 4 GiB a 32-bit address can reach. */
const importLimits: MemoryLimits = { initialPages: 0, maximumPages: 65536 };

/** What the engine's validator accepts. */
export interface WasmFeatures {
  /** 128-bit vectors. */
  readonly simd: boolean;
  /** Vector instructions with machine-dependent corners, above all fused multiply-add. */
  readonly relaxedSimd: boolean;
  /** Shared memory. */
  readonly threads: boolean;
}

/** Asks the engine by validating tiny modules. */
export function wasmFeatures(): WasmFeatures {
  const accepts = (code: readonly number[]) => {
    const probe: WasmFunction = { exportName: "probe", locals: [valueType.v128], code };
    return WebAssembly.validate(encodeModule([probe], importLimits));
  };
  const local = [opcode.localGet, 1];
  const store = [opcode.localSet, 1];
  const vector = (instruction: number) => new ByteWriter().byte(0xfd).unsigned(instruction).bytes;
  // A function that uses no vector still declares one as a local, so shared memory is probed without locals.
  const shared: WasmFunction = { exportName: "probe", locals: [], code: [] };
  return {
    simd: accepts([...local, ...local, ...vector(simd.f32x4Add), ...store]),
    relaxedSimd: accepts([...local, ...local, ...local, ...vector(simd.f32x4RelaxedMadd), ...store]),
    threads: WebAssembly.validate(encodeModule([shared], importLimits)),
  };
}

/** The machine of one flavour of SIMD. Whether this engine runs it is for `wasmFeatures` to say. */
export function wasmMachine({ relaxed }: { readonly relaxed: boolean }): Machine {
  return {
    isa: relaxed ? "wasm-relaxed-simd" : "wasm-simd",
    lanes: wasmLanes,
    vectorRegisters: wasmVectorRegisters,
    assemble(kernels: readonly Kernel[]): CodeImage {
      const functions = distinctFunctions(kernels, relaxed);
      return {
        kind: "wasm",
        keys: functions.map((wasmFunction) => wasmFunction.exportName),
        module: new WebAssembly.Module(encodeModule(functions, importLimits)),
      };
    },
  };
}

/** One function per key, in order of appearance. Two kernels that share a key must be the same code. */
function distinctFunctions(kernels: readonly Kernel[], relaxed: boolean): WasmFunction[] {
  const functions = new Map<string, WasmFunction>();
  for (const kernel of new Set(kernels)) {
    const wasmFunction = assembleKernel(kernel, relaxed);
    const known = functions.get(kernel.key);
    if (known && !sameBytes(known.code, wasmFunction.code)) {
      throw new TypeError(`Cannot assemble ${kernel.key}: two different kernels have this key`);
    }
    if (!known) functions.set(kernel.key, wasmFunction);
  }
  return [...functions.values()];
}

function sameBytes(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

/** A shared memory of at least that many bytes that every image links against. Throws above 4 GiB. */
export function createArenaMemory(byteLength: number): WebAssembly.Memory {
  const pages = Math.ceil(byteLength / pageBytes);
  if (!(byteLength >= 0) || pages > importLimits.maximumPages) {
    throw new InputError(
      `Cannot make an arena of ${byteLength} bytes: WebAssembly addresses 0 to ${
        importLimits.maximumPages * pageBytes
      }`,
    );
  }
  return new WebAssembly.Memory({ initial: pages, maximum: importLimits.maximumPages, shared: true });
}

/** Links an image against the arena. Gives the kernels in the order of `image.keys`. */
export function linkWasm(image: CodeImage, memory: WebAssembly.Memory): readonly LinkedKernel[] {
  const { exports } = new WebAssembly.Instance(image.module, { env: { memory } });
  return image.keys.map((key) => exports[key] as LinkedKernel);
}

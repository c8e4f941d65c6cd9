/**
 * WebAssembly as a machine: what this engine supports, the arena's memory, and linking.
 *
 * Linked kernels are exported functions called with the byte offset of their arguments; every worker links the same
 * compiled module against the same shared memory.
 * @module
 */
import { assembleWasm, wasmLanes, wasmVectorRegisters } from "../assemblers/wasm.ts";
import {
  ByteWriter,
  encodeModule,
  type MemoryLimits,
  opcode,
  simd,
  valueType,
  type ValueTypeCode,
} from "../assemblers/wasm_encoder.ts";
import { InputError } from "../core/errors.ts";
import type { Kernel } from "../kernels/kernel.ts";
import type { LinkedKernel, Machine, WasmImage } from "./machine.ts";

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
  const accepts = (locals: readonly ValueTypeCode[], code: readonly number[]) =>
    WebAssembly.validate(encodeModule([{ exportName: "probe", locals, code }], importLimits));
  const vectorCode = (instruction: number, operands: number) => {
    const code = new ByteWriter();
    for (let operand = 0; operand < operands; operand++) code.byte(opcode.localGet, 1);
    return code.byte(0xfd).unsigned(instruction).byte(opcode.localSet, 1).bytes;
  };
  return {
    simd: accepts([valueType.v128], vectorCode(simd.f32x4Add, 2)),
    relaxedSimd: accepts([valueType.v128], vectorCode(simd.f32x4RelaxedMadd, 3)),
    threads: accepts([], []),
  };
}

/** The machine of one flavour of SIMD. Whether this engine runs it is for `wasmFeatures` to say. */
export function wasmMachine({ relaxed }: { readonly relaxed: boolean }): Machine {
  return {
    isa: relaxed ? "wasm-relaxed-simd" : "wasm-simd",
    lanes: wasmLanes,
    vectorRegisters: wasmVectorRegisters,
    assemble: (kernels: readonly Kernel[]): WasmImage => ({
      kind: "wasm",
      keys: [...new Set(kernels.map((kernel) => kernel.key))],
      module: new WebAssembly.Module(assembleWasm(kernels, { relaxed, memory: importLimits })),
    }),
  };
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
export function linkWasm(image: WasmImage, memory: WebAssembly.Memory): readonly LinkedKernel[] {
  const { exports } = new WebAssembly.Instance(image.module, { env: { memory } });
  return image.keys.map((key) => exports[key] as LinkedKernel);
}

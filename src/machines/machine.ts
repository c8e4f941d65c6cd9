/**
 * A machine runs kernels: it assembles them into an image once, and every worker links the image against the arena.
 *
 * The image crosses worker boundaries by structured clone, so it holds no functions.
 * @module
 */
import type { Kernel } from "../kernels/kernel.ts";

/** Kernels as a WebAssembly module. */
export interface WasmImage {
  /** Which linker takes it. */
  readonly kind: "wasm";
  /** One per kernel; linking gives the functions in this order. */
  readonly keys: readonly string[];
  /** The compiled code. */
  readonly module: WebAssembly.Module;
}

/** Kernels as a shared object of this process. It can be linked to one arena. */
export interface NativeImage {
  /** Which linker takes it. */
  readonly kind: "native";
  /** One per kernel; linking gives the functions in this order. */
  readonly keys: readonly string[];
  /** Where the threads of this process find it. */
  readonly path: string;
}

/** Assembled kernels. */
export type CodeImage = WasmImage | NativeImage;

/** A kernel ready to be called with the byte offset of its argument words in the arena. */
export type LinkedKernel = (argumentsAddress: number) => void;

/** An instruction set this host can execute. */
export interface Machine {
  /** Instruction set in the words of reports, for example `wasm-relaxed-simd`. */
  readonly isa: string;
  /** f32 lanes of its vectors. */
  readonly lanes: number;
  /** Vector registers a kernel may hold. */
  readonly vectorRegisters: number;
  /** Emits all kernels into one image. Throws when a kernel breaks a rule of the vector machine. */
  assemble(kernels: readonly Kernel[]): CodeImage;
}

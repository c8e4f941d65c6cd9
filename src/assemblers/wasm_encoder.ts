/**
 * WebAssembly's binary format, as far as kernels need it: one imported shared memory, functions of one i32
 * argument without results, and one export per function.
 *
 * Pure bytes in, bytes out. The instruction numbers are those of the WebAssembly 3.0 specification, chapter
 * "Binary Format"; `wasm.ts` decides which ones to emit.
 * @module
 */

/** Types of locals. */
export const valueType = { i32: 0x7f, v128: 0x7b } as const;

/** The type byte of a local. */
export type ValueTypeCode = typeof valueType[keyof typeof valueType];

/** Numbers of the one-byte instructions in use. */
export const opcode = {
  block: 0x02,
  loop: 0x03,
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  br: 0x0c,
  brIf: 0x0d,
  localGet: 0x20,
  localSet: 0x21,
  localTee: 0x22,
  i32Load: 0x28,
  i32Load16U: 0x2f,
  i32Store: 0x36,
  i32Const: 0x41,
  i32Eq: 0x46,
  i32Ne: 0x47,
  i32LtS: 0x48,
  i32GtS: 0x4a,
  i32LeS: 0x4c,
  i32GeS: 0x4e,
  i32Add: 0x6a,
  i32Sub: 0x6b,
  i32Mul: 0x6c,
  i32And: 0x71,
  i32Shl: 0x74,
  i32ShrU: 0x76,
} as const;

/** Numbers of the vector instructions in use; each follows the prefix byte 0xfd. From 0x100 on: relaxed SIMD. */
export const simd = {
  load: 0x00,
  load32Splat: 0x09,
  store: 0x0b,
  const: 0x0c,
  shuffle: 0x0d,
  i32x4Splat: 0x11,
  f32x4Lt: 0x43,
  and: 0x4e,
  or: 0x50,
  xor: 0x51,
  bitselect: 0x52,
  load32Lane: 0x56,
  store32Lane: 0x5a,
  load32Zero: 0x5c,
  f32x4Nearest: 0x6a,
  i16x8Shl: 0x8b,
  i16x8ShrS: 0x8c,
  i16x8ShrU: 0x8d,
  i32x4Shl: 0xab,
  i32x4ShrU: 0xad,
  i32x4Add: 0xae,
  i32x4Sub: 0xb1,
  i32x4Mul: 0xb5,
  i32x4DotI16x8S: 0xba,
  f32x4Sqrt: 0xe3,
  f32x4Add: 0xe4,
  f32x4Sub: 0xe5,
  f32x4Mul: 0xe6,
  f32x4Div: 0xe7,
  f32x4Pmin: 0xea,
  f32x4Pmax: 0xeb,
  i32x4TruncSatF32x4S: 0xf8,
  f32x4ConvertI32x4S: 0xfa,
  i32x4RelaxedTruncF32x4S: 0x101,
  f32x4RelaxedMadd: 0x105,
  f32x4RelaxedNmadd: 0x106,
  i32x4RelaxedLaneselect: 0x10b,
} as const;

/** Bytes written one after the other, with WebAssembly's variable-length integers (LEB128). */
export class ByteWriter {
  readonly #bytes: number[] = [];

  /** What was written so far. */
  get bytes(): readonly number[] {
    return this.#bytes;
  }

  /** Raw bytes. */
  byte(...bytes: number[]): this {
    for (const byte of bytes) this.#bytes.push(byte);
    return this;
  }

  /** Raw bytes of a list, of any length. */
  append(bytes: Iterable<number>): this {
    for (const byte of bytes) this.#bytes.push(byte);
    return this;
  }

  /** An unsigned integer below 2³². */
  unsigned(value: number): this {
    let rest = value >>> 0;
    while (rest >= 0x80) {
      this.#bytes.push((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    this.#bytes.push(rest);
    return this;
  }

  /** A signed 32-bit integer. */
  signed(value: number): this {
    let rest = value | 0;
    while (rest < -64 || rest > 63) {
      this.#bytes.push((rest & 0x7f) | 0x80);
      rest >>= 7;
    }
    this.#bytes.push(rest & 0x7f);
    return this;
  }

  /** A UTF-8 string with its length in front. */
  name(text: string): this {
    const bytes = new TextEncoder().encode(text);
    return this.unsigned(bytes.length).append(bytes);
  }

  /** Another writer's bytes with their count in front. */
  sized(content: ByteWriter): this {
    return this.unsigned(content.bytes.length).append(content.bytes);
  }
}

/** A function `(argumentsAddress: i32) → ()`. Local 0 is the argument. */
export interface WasmFunction {
  /** Unique in its module. */
  readonly exportName: string;
  /** Types of locals 1, 2, … */
  readonly locals: readonly ValueTypeCode[];
  /** Instructions, without the closing `end`. */
  readonly code: readonly number[];
}

/** Size limits of the imported memory, in pages of 64 KiB. A linked memory must lie within them. */
export interface MemoryLimits {
  /** A linked memory has at least this size. */
  readonly initialPages: number;
  /** A linked memory is limited to at most this size. */
  readonly maximumPages: number;
}

/** A module that imports the shared memory `env.memory` and exports every function. */
export function encodeModule(
  functions: readonly WasmFunction[],
  memory: MemoryLimits,
): Uint8Array<ArrayBuffer> {
  const module = new ByteWriter().byte(0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00);
  const section = (id: number, content: ByteWriter) => module.byte(id).sized(content);

  section(1, new ByteWriter().unsigned(1).byte(0x60).unsigned(1).byte(valueType.i32).unsigned(0));
  section(
    2,
    new ByteWriter().unsigned(1).name("env").name("memory")
      .byte(0x02, 0x03).unsigned(memory.initialPages).unsigned(memory.maximumPages),
  );
  const types = new ByteWriter().unsigned(functions.length);
  const exports = new ByteWriter().unsigned(functions.length);
  const bodies = new ByteWriter().unsigned(functions.length);
  functions.forEach((wasmFunction, index) => {
    types.unsigned(0);
    exports.name(wasmFunction.exportName).byte(0x00).unsigned(index);
    bodies.sized(encodeBody(wasmFunction));
  });
  section(3, types);
  section(7, exports);
  section(10, bodies);
  return Uint8Array.from(module.bytes);
}

/** Locals as runs of equal types, then the instructions. */
function encodeBody({ locals, code }: WasmFunction): ByteWriter {
  const runs: { type: ValueTypeCode; count: number }[] = [];
  for (const type of locals) {
    const last = runs.at(-1);
    if (last?.type === type) last.count++;
    else runs.push({ type, count: 1 });
  }
  const body = new ByteWriter().unsigned(runs.length);
  for (const { type, count } of runs) body.unsigned(count).byte(type);
  return body.append(code).byte(opcode.end);
}

/**
 * The vector machine in WebAssembly: 4 lanes of 128-bit SIMD, registers as locals, addresses as memory offsets.
 *
 * Two flavours. Plain SIMD multiplies and adds with two roundings; relaxed SIMD (`relaxed_madd`) lets the engine use
 * the processor's fused multiply-add. Everything else is the same code.
 *
 * Emission is pure: the same kernels in the same order give the same bytes.
 * @module
 */
import type { ArgumentKind, ArgumentReader, ArgumentSpec, Kernel } from "../kernels/kernel.ts";
import type { FourVectors, Integer, Relation, Vector, VectorMachine } from "./vector_machine.ts";
import {
  ByteWriter,
  encodeModule,
  type MemoryLimits,
  opcode,
  simd,
  valueType,
  type ValueTypeCode,
  type WasmFunction,
} from "./wasm_encoder.ts";

/** Elements of a `v128`. */
export const wasmLanes = 4;

/** V8 on x86-64 and AArch64 keeps about this many `v128` locals in registers before it spills. */
export const wasmVectorRegisters = 16;

/** What x86-64 has left after stack pointer, argument pointer and two temporaries; locals would allow more. */
export const wasmIntegerRegisters = 12;

/** How to assemble: the flavour of SIMD and the limits of the memory import. */
export interface WasmOptions {
  /** Use relaxed SIMD (fused multiply-add). */
  readonly relaxed: boolean;
  /** Limits every linked memory must lie within. */
  readonly memory: MemoryLimits;
}

/**
 * Assembles kernels into one module. Each key becomes one exported function `key(argumentsAddress: i32)`, in order of
 * appearance; kernels that share a key must be the same code.
 */
export function assembleWasm(kernels: readonly Kernel[], options: WasmOptions): Uint8Array<ArrayBuffer> {
  const functions = new Map<string, WasmFunction>();
  for (const kernel of new Set(kernels)) {
    const wasmFunction = assembleKernel(kernel, options.relaxed);
    const known = functions.get(kernel.key);
    if (known && !sameBytes(known.code, wasmFunction.code)) {
      throw new TypeError(`Cannot assemble ${kernel.key}: two different kernels have this key`);
    }
    if (!known) functions.set(kernel.key, wasmFunction);
  }
  return encodeModule([...functions.values()], options.memory);
}

function sameBytes(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

/** The code of one kernel. Throws a TypeError that names the kernel when it breaks a rule of the vector machine. */
export function assembleKernel(kernel: Kernel, relaxed: boolean): WasmFunction {
  if (!/^[A-Za-z_]\w*$/.test(kernel.key)) {
    throw new TypeError(`Cannot assemble kernel "${kernel.key}": wanted an identifier as its key`);
  }
  const emitter = new WasmEmitter(kernel, relaxed);
  kernel.emit(emitter, emitter.argumentReader);
  return emitter.finish();
}

type Register = Vector | Integer;

const emptyBlock = 0x40;

const compare: Readonly<Record<Relation, number>> = {
  equal: opcode.i32Eq,
  notEqual: opcode.i32Ne,
  less: opcode.i32LtS,
  lessOrEqual: opcode.i32LeS,
  greater: opcode.i32GtS,
  greaterOrEqual: opcode.i32GeS,
};

/** Emits one kernel. Registers are checked on every use; the checks cost nothing at run time. */
class WasmEmitter implements VectorMachine {
  readonly isa: string;
  readonly lanes = wasmLanes;
  readonly vectorRegisters = wasmVectorRegisters;
  readonly integerRegisters = wasmIntegerRegisters;
  readonly argumentReader: ArgumentReader<ArgumentSpec>;

  readonly #kernel: Kernel;
  readonly #relaxed: boolean;
  readonly #code = new ByteWriter();
  readonly #locals: ValueTypeCode[] = [];
  readonly #live = new Set<Register>();
  readonly #written = new Set<Register>();
  readonly #idle = { vector: [] as number[], integer: [] as number[] };
  readonly #held = { vector: 0, integer: 0 };

  constructor(kernel: Kernel, relaxed: boolean) {
    this.#kernel = kernel;
    this.#relaxed = relaxed;
    this.isa = relaxed ? "wasm-relaxed-simd" : "wasm-simd";
    this.argumentReader = {
      pointer: (name) => this.#integerArgument(name, "pointer"),
      integer: (name) => this.#integerArgument(name, "integer"),
      float: (name) => {
        const d = this.vector();
        this.#code.byte(opcode.localGet, 0);
        this.#simdMemory(simd.load32Splat, this.#argumentOffset(name, "float"));
        this.#set(d);
        return d;
      },
    };
  }

  #integerArgument(name: string | number, kind: ArgumentKind): Integer {
    const d = this.integer();
    this.#code.byte(opcode.localGet, 0);
    this.#memory(opcode.i32Load, this.#argumentOffset(name, kind), 2);
    this.#set(d);
    return d;
  }

  #argumentOffset(name: string | number, kind: ArgumentKind): number {
    const spec = this.#kernel.arguments;
    if (spec[name] !== kind) this.#fail(`argument ${name} is not a declared ${kind}`);
    return 4 * Object.keys(spec).indexOf(String(name));
  }

  /** The finished function. Throws when a register is still held. */
  finish(): WasmFunction {
    if (this.#live.size > 0) {
      this.#fail(`${this.#held.vector} vector and ${this.#held.integer} integer registers were never freed`);
    }
    return { exportName: this.#kernel.key, locals: this.#locals, code: this.#code.bytes };
  }

  // Registers -------------------------------------------------------------------------------------------

  vector(): Vector {
    const register: Vector = {
      kind: "vector",
      index: this.#take("vector", this.vectorRegisters, valueType.v128),
    };
    this.#live.add(register);
    return register;
  }

  integer(): Integer {
    const register: Integer = {
      kind: "integer",
      index: this.#take("integer", this.integerRegisters, valueType.i32),
    };
    this.#live.add(register);
    return register;
  }

  free(...registers: Register[]): void {
    for (const register of registers) {
      if (!this.#live.delete(register)) this.#fail(`${register.kind} register freed twice`);
      this.#written.delete(register);
      this.#held[register.kind]--;
      this.#idle[register.kind].push(register.index);
    }
  }

  #take(kind: "vector" | "integer", limit: number, type: ValueTypeCode): number {
    if (this.#held[kind] === limit) this.#fail(`more than ${limit} ${kind} registers held at once`);
    this.#held[kind]++;
    return this.#idle[kind].pop() ?? this.#locals.push(type);
  }

  #fail(problem: string): never {
    throw new TypeError(`Cannot assemble ${this.#kernel.key} for ${this.isa}: ${problem}`);
  }

  // Operands and instruction shapes ---------------------------------------------------------------------

  #checkLive(register: Register): void {
    if (!this.#live.has(register)) this.#fail(`${register.kind} register used after it was freed`);
  }

  #get(...registers: Register[]): void {
    for (const register of registers) {
      this.#checkLive(register);
      if (!this.#written.has(register)) this.#fail(`${register.kind} register read before it was written`);
      this.#code.byte(opcode.localGet).unsigned(register.index);
    }
  }

  #set(register: Register): void {
    this.#checkLive(register);
    this.#written.add(register);
    this.#code.byte(opcode.localSet).unsigned(register.index);
  }

  #constant(value: number): void {
    if (!Number.isInteger(value) || value < -(2 ** 31) || value >= 2 ** 32) {
      this.#fail(`constant ${value} is not a 32-bit integer`);
    }
    this.#code.byte(opcode.i32Const).signed(value);
  }

  #getOrConstant(operand: Integer | number): void {
    if (typeof operand === "number") this.#constant(operand);
    else this.#get(operand);
  }

  #checkBits(bits: number): void {
    if (!Number.isInteger(bits) || bits < 0 || bits > 31) this.#fail(`shift by ${bits} bits, wanted 0 to 31`);
  }

  #memory(instruction: number, offset: number, alignmentLog2: number): void {
    this.#code.byte(instruction);
    this.#memoryOperand(offset, alignmentLog2);
  }

  #simdMemory(instruction: number, offset: number): void {
    this.#simd(instruction);
    this.#memoryOperand(offset, 2);
  }

  #memoryOperand(offset: number, alignmentLog2: number): void {
    this.#checkOffset(offset);
    this.#code.unsigned(alignmentLog2).unsigned(offset);
  }

  #checkOffset(offset: number): void {
    if (!Number.isInteger(offset) || offset < 0 || offset >= 2 ** 31) {
      this.#fail(`memory offset ${offset}, wanted an integer from 0 to 2^31 - 1`);
    }
  }

  #simd(instruction: number): void {
    this.#code.byte(0xfd).unsigned(instruction);
  }

  /** d = instruction(operands) */
  #compute(d: Vector, instruction: number, ...operands: Vector[]): void {
    this.#get(...operands);
    this.#simd(instruction);
    this.#set(d);
  }

  #computeInteger(d: Integer, instruction: number, a: Integer, b: Integer | number): void {
    this.#get(a);
    this.#getOrConstant(b);
    this.#code.byte(instruction);
    this.#set(d);
  }

  #shift(d: Vector, instruction: number, a: Vector, bits: number): void {
    this.#checkBits(bits);
    this.#get(a);
    this.#constant(bits);
    this.#simd(instruction);
    this.#set(d);
  }

  #words(...words: number[]): void {
    this.#simd(simd.const);
    for (const word of words) this.#code.byte(word & 255, word >>> 8 & 255, word >>> 16 & 255, word >>> 24);
  }

  /** Pushes `a` with its 32-bit lanes permuted. */
  #permuted(a: Vector, lanes: readonly number[]): void {
    this.#get(a, a);
    this.#shuffle(lanes);
  }

  /** Pops two vectors, pushes four of their eight lanes. */
  #shuffle(lanes: readonly number[]): void {
    this.#simd(simd.shuffle);
    for (const lane of lanes) this.#code.byte(4 * lane, 4 * lane + 1, 4 * lane + 2, 4 * lane + 3);
  }

  #block(instruction: number, body: () => void): void {
    this.#code.byte(instruction, emptyBlock);
    body();
    this.#code.byte(opcode.end);
  }

  // Integers --------------------------------------------------------------------------------------------

  setInteger(d: Integer, value: number): void {
    this.#constant(value);
    this.#set(d);
  }

  moveInteger(d: Integer, a: Integer): void {
    this.#get(a);
    this.#set(d);
  }

  addInteger(d: Integer, a: Integer, b: Integer | number): void {
    this.#computeInteger(d, opcode.i32Add, a, b);
  }

  subtractInteger(d: Integer, a: Integer, b: Integer | number): void {
    this.#computeInteger(d, opcode.i32Sub, a, b);
  }

  multiplyInteger(d: Integer, a: Integer, b: Integer | number): void {
    this.#computeInteger(d, opcode.i32Mul, a, b);
  }

  shiftLeftInteger(d: Integer, a: Integer, bits: number): void {
    this.#checkBits(bits);
    this.#computeInteger(d, opcode.i32Shl, a, bits);
  }

  shiftRightInteger(d: Integer, a: Integer, bits: number): void {
    this.#checkBits(bits);
    this.#computeInteger(d, opcode.i32ShrU, a, bits);
  }

  andInteger(d: Integer, a: Integer, mask: number): void {
    this.#computeInteger(d, opcode.i32And, a, mask);
  }

  loadI32(d: Integer, base: Integer, offset: number): void {
    this.#get(base);
    this.#memory(opcode.i32Load, offset, 2);
    this.#set(d);
  }

  loadU16(d: Integer, base: Integer, offset: number): void {
    this.#get(base);
    this.#memory(opcode.i32Load16U, offset, 1);
    this.#set(d);
  }

  storeI32(base: Integer, offset: number, a: Integer): void {
    this.#get(base, a);
    this.#memory(opcode.i32Store, offset, 2);
  }

  // Control ---------------------------------------------------------------------------------------------

  forRange(
    index: Integer,
    from: Integer | number,
    to: Integer | number,
    step: Integer | number,
    body: () => void,
  ): void {
    if (typeof step === "number" && step <= 0) this.#fail(`loop step ${step}, wanted more than 0`);
    this.#getOrConstant(from);
    this.#set(index);
    const isKnown = typeof from === "number" && typeof to === "number";
    if (isKnown && from >= to) return;
    const loop = () =>
      this.#block(opcode.loop, () => {
        body();
        this.#computeInteger(index, opcode.i32Add, index, step);
        this.#get(index);
        this.#getOrConstant(to);
        this.#code.byte(opcode.i32LtS, opcode.brIf, 0);
      });
    if (isKnown) return loop();
    this.#block(opcode.block, () => {
      this.#get(index);
      this.#getOrConstant(to);
      this.#code.byte(opcode.i32GeS, opcode.brIf, 0);
      loop();
    });
  }

  repeat(count: Integer, body: () => void): void {
    this.#block(opcode.block, () => {
      this.#get(count);
      this.#constant(0);
      this.#code.byte(opcode.i32LeS, opcode.brIf, 0);
      this.#block(opcode.loop, () => {
        body();
        this.#get(count);
        this.#constant(-1);
        this.#code.byte(opcode.i32Add, opcode.localTee).unsigned(count.index);
        this.#code.byte(opcode.brIf, 0);
      });
    });
  }

  when(a: Integer, relation: Relation, b: Integer | number, then: () => void, otherwise?: () => void): void {
    this.#get(a);
    this.#getOrConstant(b);
    this.#code.byte(compare[relation]);
    this.#block(opcode.if, () => {
      then();
      if (!otherwise) return;
      this.#code.byte(opcode.else);
      otherwise();
    });
  }

  // Memory ----------------------------------------------------------------------------------------------

  load(d: Vector, base: Integer, offset: number): void {
    this.#get(base);
    this.#simdMemory(simd.load, offset);
    this.#set(d);
  }

  store(base: Integer, offset: number, a: Vector): void {
    this.#get(base, a);
    this.#simdMemory(simd.store, offset);
  }

  storeColumns(base: Integer, offset: number, stride: number, rows: FourVectors): void {
    const [a, b, c, d] = rows;
    const [t, u] = [this.vector(), this.vector()];
    const interleave = (to: Vector, left: Vector, right: Vector, lanes: readonly number[]) => {
      this.#get(left, right);
      this.#shuffle(lanes);
      this.#set(to);
    };
    const [low, high, lowHalves, highHalves] = [[0, 4, 1, 5], [2, 6, 3, 7], [0, 1, 4, 5], [2, 3, 6, 7]];
    interleave(t, a, b, low);
    interleave(u, c, d, low);
    interleave(a, a, b, high);
    interleave(c, c, d, high);
    for (
      const [lane, left, right, halves] of [
        [0, t, u, lowHalves],
        [1, t, u, highHalves],
        [2, a, c, lowHalves],
        [3, a, c, highHalves],
      ] as const
    ) {
      interleave(b, left, right, halves);
      this.store(base, offset + lane * stride, b);
    }
    this.free(t, u);
  }

  prefetch(base: Integer, offset: number): void {
    this.#checkLive(base);
    this.#checkOffset(offset);
  }

  loadFirst(d: Vector, base: Integer, offset: number, count: Integer): void {
    this.when(count, "equal", this.lanes, () => this.load(d, base, offset), () => {
      this.#words(0, 0, 0, 0);
      this.#set(d);
      this.#lanesBelow(count, (lane) => {
        this.#get(base, d);
        this.#simdMemory(simd.load32Lane, offset + 4 * lane);
        this.#code.byte(lane);
        this.#set(d);
      });
    });
  }

  storeFirst(base: Integer, offset: number, a: Vector, count: Integer): void {
    this.when(count, "equal", this.lanes, () => this.store(base, offset, a), () => {
      this.#lanesBelow(count, (lane) => this.#storeLane(base, offset + 4 * lane, a, lane));
    });
  }

  /** Runs `body` for lanes 0, 1, … of a partial vector: at most `lanes` − 1 of them. */
  #lanesBelow(count: Integer, body: (lane: number) => void): void {
    this.#block(opcode.block, () => {
      for (let lane = 0; lane < this.lanes - 1; lane++) {
        this.#get(count);
        this.#constant(lane);
        this.#code.byte(opcode.i32LeS, opcode.brIf, 0);
        body(lane);
      }
    });
  }

  broadcast(d: Vector, base: Integer, offset: number): void {
    this.#get(base);
    this.#simdMemory(simd.load32Splat, offset);
    this.#set(d);
  }

  broadcastInteger(d: Vector, a: Integer): void {
    this.#get(a);
    this.#simd(simd.i32x4Splat);
    this.#set(d);
  }

  storeLane0(base: Integer, offset: number, a: Vector): void {
    this.#storeLane(base, offset, a, 0);
  }

  #storeLane(base: Integer, offset: number, a: Vector, lane: number): void {
    this.#get(base, a);
    this.#simdMemory(simd.store32Lane, offset);
    this.#code.byte(lane);
  }

  // f32 arithmetic --------------------------------------------------------------------------------------

  constantF32(d: Vector, value: number): void {
    const [bits] = new Int32Array(Float32Array.of(value).buffer);
    this.constantI32(d, bits);
  }

  move(d: Vector, a: Vector): void {
    this.#get(a);
    this.#set(d);
  }

  add(d: Vector, a: Vector, b: Vector): void {
    this.#compute(d, simd.f32x4Add, a, b);
  }

  subtract(d: Vector, a: Vector, b: Vector): void {
    this.#compute(d, simd.f32x4Sub, a, b);
  }

  multiply(d: Vector, a: Vector, b: Vector): void {
    this.#compute(d, simd.f32x4Mul, a, b);
  }

  divide(d: Vector, a: Vector, b: Vector): void {
    this.#compute(d, simd.f32x4Div, a, b);
  }

  squareRoot(d: Vector, a: Vector): void {
    this.#compute(d, simd.f32x4Sqrt, a);
  }

  // The "pseudo" minimum and maximum are one instruction on x86; the IEEE ones take six to get NaN and −0 right.
  minimum(d: Vector, a: Vector, b: Vector): void {
    this.#compute(d, simd.f32x4Pmin, a, b);
  }

  maximum(d: Vector, a: Vector, b: Vector): void {
    this.#compute(d, simd.f32x4Pmax, a, b);
  }

  fma(accumulator: Vector, a: Vector, b: Vector): void {
    this.#multiplyAccumulate(accumulator, a, b, simd.f32x4RelaxedMadd, simd.f32x4Add);
  }

  fmaNegated(accumulator: Vector, a: Vector, b: Vector): void {
    this.#multiplyAccumulate(accumulator, a, b, simd.f32x4RelaxedNmadd, simd.f32x4Sub);
  }

  fmaLoad(accumulator: Vector, a: Vector, base: Integer, offset: number): void {
    this.#multiplyAccumulateMemory(accumulator, a, simd.load, base, offset);
  }

  fmaBroadcast(accumulator: Vector, a: Vector, base: Integer, offset: number): void {
    this.#multiplyAccumulateMemory(accumulator, a, simd.load32Splat, base, offset);
  }

  #multiplyAccumulateMemory(
    accumulator: Vector,
    a: Vector,
    load: number,
    base: Integer,
    offset: number,
  ): void {
    if (!this.#relaxed) this.#get(accumulator);
    this.#get(a, base);
    this.#simdMemory(load, offset);
    if (this.#relaxed) {
      this.#get(accumulator);
      this.#simd(simd.f32x4RelaxedMadd);
    } else {
      this.#simd(simd.f32x4Mul);
      this.#simd(simd.f32x4Add);
    }
    this.#set(accumulator);
  }

  #multiplyAccumulate(accumulator: Vector, a: Vector, b: Vector, fused: number, separate: number): void {
    if (this.#relaxed) return this.#compute(accumulator, fused, a, b, accumulator);
    this.#get(accumulator, a, b);
    this.#simd(simd.f32x4Mul);
    this.#simd(separate);
    this.#set(accumulator);
  }

  selectLess(d: Vector, a: Vector, b: Vector, x: Vector, y: Vector): void {
    this.#get(x, y, a, b);
    this.#simd(simd.f32x4Lt);
    // The mask is all ones or all zeros per lane, where the relaxed instruction (one blend on x86) is exact too.
    this.#simd(this.#relaxed ? simd.i32x4RelaxedLaneselect : simd.bitselect);
    this.#set(d);
  }

  sumLanes(d: Vector, a: Vector): void {
    this.#reduceLanes(d, a, simd.f32x4Add);
  }

  maximumLanes(d: Vector, a: Vector): void {
    this.#reduceLanes(d, a, simd.f32x4Pmax);
  }

  #reduceLanes(d: Vector, a: Vector, instruction: number): void {
    const fold = (source: Vector, partner: readonly number[]) => {
      this.#get(source);
      this.#permuted(source, partner);
      this.#simd(instruction);
      this.#set(d);
    };
    fold(a, [2, 3, 0, 1]);
    fold(d, [1, 0, 3, 2]);
  }

  // i32 arithmetic, wrapping ----------------------------------------------------------------------------

  constantI32(d: Vector, value: number): void {
    this.#words(value, value, value, value);
    this.#set(d);
  }

  laneIndex(d: Vector): void {
    this.#words(0, 1, 2, 3);
    this.#set(d);
  }

  addI32(d: Vector, a: Vector, b: Vector): void {
    this.#compute(d, simd.i32x4Add, a, b);
  }

  subtractI32(d: Vector, a: Vector, b: Vector): void {
    this.#compute(d, simd.i32x4Sub, a, b);
  }

  multiplyI32(d: Vector, a: Vector, b: Vector): void {
    this.#compute(d, simd.i32x4Mul, a, b);
  }

  and(d: Vector, a: Vector, b: Vector): void {
    this.#compute(d, simd.and, a, b);
  }

  or(d: Vector, a: Vector, b: Vector): void {
    this.#compute(d, simd.or, a, b);
  }

  xor(d: Vector, a: Vector, b: Vector): void {
    this.#compute(d, simd.xor, a, b);
  }

  shiftLeftI32(d: Vector, a: Vector, bits: number): void {
    this.#shift(d, simd.i32x4Shl, a, bits);
  }

  shiftRightI32(d: Vector, a: Vector, bits: number): void {
    this.#shift(d, simd.i32x4ShrU, a, bits);
  }

  i32ToF32(d: Vector, a: Vector): void {
    this.#compute(d, simd.f32x4ConvertI32x4S, a);
  }

  f32ToI32(d: Vector, a: Vector): void {
    this.#get(a);
    this.#simd(simd.f32x4Nearest);
    this.#simd(this.#relaxed ? simd.i32x4RelaxedTruncF32x4S : simd.i32x4TruncSatF32x4S);
    this.#set(d);
  }

  /**
   * Even bytes and odd bytes are widened to 16 bits apart, so that `dot_i16x8_s` adds bytes 0 and 2, then 1 and 3, of
   * each lane: exact, and no shuffle. (The relaxed dot product reads one side as 7 bits and cannot be used.)
   */
  dotU8S8(accumulator: Vector, a: Vector, b: Vector): void {
    const shift = (instruction: number, bits: number) => {
      this.#constant(bits);
      this.#simd(instruction);
    };
    this.#get(accumulator, a);
    this.#words(0x00ff00ff, 0x00ff00ff, 0x00ff00ff, 0x00ff00ff);
    this.#simd(simd.and);
    this.#get(b);
    shift(simd.i16x8Shl, 8);
    shift(simd.i16x8ShrS, 8);
    this.#simd(simd.i32x4DotI16x8S);
    this.#simd(simd.i32x4Add);
    this.#get(a);
    shift(simd.i16x8ShrU, 8);
    this.#get(b);
    shift(simd.i16x8ShrS, 8);
    this.#simd(simd.i32x4DotI16x8S);
    this.#simd(simd.i32x4Add);
    this.#set(accumulator);
  }
}

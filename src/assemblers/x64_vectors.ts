/**
 * The vector half of the x86-64 vector machines, as far as AVX2 and AVX-512 have the same instructions.
 * @module
 */
import type { FourVectors, Integer, Vector, VectorMachine } from "./vector_machine.ts";
import { X64Emitter } from "./x64_emitter.ts";
import type { threeOperand } from "./x64_instructions.ts";
import { type Memory, type VectorRegister, xmm } from "./x64_operands.ts";

/** Emits one kernel but for the instructions left abstract. */
export abstract class X64VectorEmitter extends X64Emitter implements VectorMachine {
  abstract readonly lanes: number;
  /** The processor has `vpdpbusd` at this width. */
  protected abstract readonly vnni: boolean;

  // Memory ----------------------------------------------------------------------------------------------

  load(d: Vector, base: Integer, offset: number): void {
    const memory = this.memory(base, offset);
    this.body.load("vmovups", this.writeVector(d), memory);
  }

  store(base: Integer, offset: number, a: Vector): void {
    this.body.store("vmovups", this.memory(base, offset), this.readVector(a));
  }

  abstract loadFirst(d: Vector, base: Integer, offset: number, count: Integer): void;
  abstract storeFirst(base: Integer, offset: number, a: Vector, count: Integer): void;

  /** Stores one of the groups of four lanes of a register. */
  protected abstract storeGroup(memory: Memory, a: VectorRegister, group: number): void;

  storeColumns(base: Integer, offset: number, stride: number, rows: FourVectors): void {
    const [a, b, c, d] = rows.map((row) => this.readVector(row));
    const places = Array.from({ length: this.lanes }, (_, lane) => this.memory(base, offset + lane * stride));
    const { body } = this;
    this.withTemporaries(2, rows, (t, u) => {
      body.three("vunpcklps", t, a, b);
      body.three("vunpcklps", u, c, d);
      body.three("vunpckhps", a, a, b);
      body.three("vunpckhps", c, c, d);
      // Lanes 0 and 1 of the groups are halves of t and u, lanes 2 and 3 of a and c.
      for (
        const [remainder, low, high, half] of [[0, t, u, 0x44], [1, t, u, 0xee], [2, a, c, 0x44], [
          3,
          a,
          c,
          0xee,
        ]] as const
      ) {
        body.threeImmediate("vshufps", b, low, high, half);
        for (let group = 0; 4 * group < this.lanes; group++) {
          this.storeGroup(places[4 * group + remainder], b, group);
        }
      }
    });
  }

  broadcast(d: Vector, base: Integer, offset: number): void {
    const memory = this.memory(base, offset);
    this.body.load("vbroadcastss", this.writeVector(d), memory);
  }

  abstract broadcastInteger(d: Vector, a: Integer): void;

  storeLane0(base: Integer, offset: number, a: Vector): void {
    this.body.store("vmovss", this.memory(base, offset), xmm(this.readVector(a).number));
  }

  // f32 arithmetic --------------------------------------------------------------------------------------

  /** d = instruction(a, b) */
  protected compute(name: keyof typeof threeOperand, d: Vector, a: Vector, b: Vector): void {
    const [left, right] = [this.readVector(a), this.readVector(b)];
    this.body.three(name, this.writeVector(d), left, right);
  }

  constantF32(d: Vector, value: number): void {
    const [bits] = new Int32Array(Float32Array.of(value).buffer);
    this.constantI32(d, bits);
  }

  move(d: Vector, a: Vector): void {
    const from = this.readVector(a);
    const to = this.writeVector(d);
    if (to !== from) this.body.two("vmovaps", to, from);
  }

  add(d: Vector, a: Vector, b: Vector): void {
    this.compute("vaddps", d, a, b);
  }

  subtract(d: Vector, a: Vector, b: Vector): void {
    this.compute("vsubps", d, a, b);
  }

  multiply(d: Vector, a: Vector, b: Vector): void {
    this.compute("vmulps", d, a, b);
  }

  divide(d: Vector, a: Vector, b: Vector): void {
    this.compute("vdivps", d, a, b);
  }

  squareRoot(d: Vector, a: Vector): void {
    const from = this.readVector(a);
    this.body.two("vsqrtps", this.writeVector(d), from);
  }

  minimum(d: Vector, a: Vector, b: Vector): void {
    this.compute("vminps", d, a, b);
  }

  maximum(d: Vector, a: Vector, b: Vector): void {
    this.compute("vmaxps", d, a, b);
  }

  fma(accumulator: Vector, a: Vector, b: Vector): void {
    this.#accumulate("vfmadd231ps", accumulator, a, b);
  }

  fmaNegated(accumulator: Vector, a: Vector, b: Vector): void {
    this.#accumulate("vfnmadd231ps", accumulator, a, b);
  }

  #accumulate(name: keyof typeof threeOperand, accumulator: Vector, a: Vector, b: Vector): void {
    this.body.three(name, this.readVector(accumulator), this.readVector(a), this.readVector(b));
  }

  fmaLoad(accumulator: Vector, a: Vector, base: Integer, offset: number): void {
    const memory = this.memory(base, offset);
    this.body.three("vfmadd231ps", this.readVector(accumulator), this.readVector(a), memory);
  }

  abstract fmaBroadcast(accumulator: Vector, a: Vector, base: Integer, offset: number): void;
  abstract selectLess(d: Vector, a: Vector, b: Vector, x: Vector, y: Vector): void;

  sumLanes(d: Vector, a: Vector): void {
    this.#foldLanes("vaddps", d, a);
  }

  maximumLanes(d: Vector, a: Vector): void {
    this.#foldLanes("vmaxps", d, a);
  }

  /** For each fold of the tree: d = a with the halves of 256, 128, 64 or 32 bits of each pair exchanged. */
  protected abstract readonly exchanges: readonly ((d: VectorRegister, a: VectorRegister) => void)[];

  #foldLanes(name: "vaddps" | "vmaxps", d: Vector, a: Vector): void {
    let from = this.readVector(a);
    const to = this.writeVector(d);
    this.withTemporaries(1, [d, a], (partner) => {
      for (const exchange of this.exchanges) {
        exchange(partner, from);
        this.body.three(name, to, from, partner);
        from = to;
      }
    });
  }

  // i32 arithmetic --------------------------------------------------------------------------------------

  constantI32(d: Vector, value: number): void {
    const to = this.writeVector(d);
    if (value === 0) this.body.three(this.bitwise.xor, to, to, to);
    else this.body.load("vbroadcastss", to, this.constants.word(value));
  }

  laneIndex(d: Vector): void {
    this.body.load("vmovups", this.writeVector(d), this.constants.laneNumbers);
  }

  addI32(d: Vector, a: Vector, b: Vector): void {
    this.compute("vpaddd", d, a, b);
  }

  subtractI32(d: Vector, a: Vector, b: Vector): void {
    this.compute("vpsubd", d, a, b);
  }

  multiplyI32(d: Vector, a: Vector, b: Vector): void {
    this.compute("vpmulld", d, a, b);
  }

  /** The mnemonics of bitwise instructions, which differ between VEX and EVEX. */
  protected abstract readonly bitwise: Readonly<Record<"and" | "or" | "xor", keyof typeof threeOperand>>;

  and(d: Vector, a: Vector, b: Vector): void {
    this.compute(this.bitwise.and, d, a, b);
  }

  or(d: Vector, a: Vector, b: Vector): void {
    this.compute(this.bitwise.or, d, a, b);
  }

  xor(d: Vector, a: Vector, b: Vector): void {
    this.compute(this.bitwise.xor, d, a, b);
  }

  shiftLeftI32(d: Vector, a: Vector, bits: number): void {
    const from = this.readVector(a);
    this.body.shiftVector("vpslld", this.writeVector(d), from, this.bits(bits));
  }

  shiftRightI32(d: Vector, a: Vector, bits: number): void {
    const from = this.readVector(a);
    this.body.shiftVector("vpsrld", this.writeVector(d), from, this.bits(bits));
  }

  i32ToF32(d: Vector, a: Vector): void {
    const from = this.readVector(a);
    this.body.two("vcvtdq2ps", this.writeVector(d), from);
  }

  f32ToI32(d: Vector, a: Vector): void {
    const from = this.readVector(a);
    this.body.two("vcvtps2dq", this.writeVector(d), from);
  }

  /**
   * One instruction, or without VNNI: even bytes and odd bytes are widened to 16 bits apart, so that `vpmaddwd` adds
   * bytes 0 and 2, then 1 and 3, of each lane. (`vpmaddubsw` would saturate.)
   */
  dotU8S8(accumulator: Vector, a: Vector, b: Vector): void {
    if (this.vnni) return this.#accumulate("vpdpbusd", accumulator, a, b);
    const { body } = this;
    const [sum, unsigned, signed] = [this.readVector(accumulator), this.readVector(a), this.readVector(b)];
    // The half-done sum needs a register of its own when the accumulator is also an operand.
    const isOperand = sum === unsigned || sum === signed;
    this.withTemporaries(isOperand ? 3 : 2, [accumulator, a, b], (left, right, partial = sum) => {
      body.load("vbroadcastss", left, this.constants.word(0x00ff00ff));
      body.three(this.bitwise.and, left, left, unsigned);
      body.shiftVector("vpsllw", right, signed, 8);
      body.shiftVector("vpsraw", right, right, 8);
      body.three("vpmaddwd", left, left, right);
      body.three("vpaddd", partial, sum, left);
      body.shiftVector("vpsrlw", left, unsigned, 8);
      body.shiftVector("vpsraw", right, signed, 8);
      body.three("vpmaddwd", left, left, right);
      body.three("vpaddd", sum, partial, left);
    });
  }
}

/**
 * The vector machine in AVX-512 (F, BW, VL, DQ): 16 lanes, 32 registers, masks for parts of vectors.
 * @module
 */
import type { Kernel } from "../kernels/kernel.ts";
import type { Integer, Vector } from "./vector_machine.ts";
import type { X64ConstantPool } from "./x64_constants.ts";
import { gpr, mask, type Memory, type VectorRegister, zmm } from "./x64_operands.ts";
import { X64VectorEmitter } from "./x64_vectors.ts";

/** "a < b", false where one is NaN, quiet. */
const lessThan = 0x11;
const someLanes = mask(1);

/** Emits one kernel for AVX-512. */
export class Avx512Emitter extends X64VectorEmitter {
  readonly isa = "avx512";
  readonly lanes = 16;
  protected readonly bitwise = { and: "vpandd", or: "vpord", xor: "vpxord" } as const;
  protected readonly exchanges = [
    (d: VectorRegister, a: VectorRegister) => this.body.threeImmediate("vshuff32x4", d, a, a, 0b01_00_11_10),
    (d: VectorRegister, a: VectorRegister) => this.body.threeImmediate("vshuff32x4", d, a, a, 0b10_11_00_01),
    (d: VectorRegister, a: VectorRegister) => this.body.twoImmediate("vpermilps", d, a, 0b01_00_11_10),
    (d: VectorRegister, a: VectorRegister) => this.body.twoImmediate("vpermilps", d, a, 0b10_11_00_01),
  ];

  constructor(kernel: Kernel, constants: X64ConstantPool, protected readonly vnni: boolean) {
    super(kernel, constants, 32);
  }

  protected vectorRegister(number: number): VectorRegister {
    return zmm(number);
  }

  /** k1 = the lanes below count. */
  #maskFirst(count: Integer): void {
    this.body.movImmediate(gpr.rax, -1);
    this.body.bzhi(gpr.rax, gpr.rax, this.read(count));
    this.body.kmovw(someLanes, gpr.rax);
  }

  loadFirst(d: Vector, base: Integer, offset: number, count: Integer): void {
    const memory = this.memory(base, offset);
    this.#maskFirst(count);
    this.body.load("vmovups", this.writeVector(d), memory, { mask: someLanes, zeroing: true });
  }

  storeFirst(base: Integer, offset: number, a: Vector, count: Integer): void {
    this.#maskFirst(count);
    this.body.store("vmovups", this.memory(base, offset), this.readVector(a), { mask: someLanes });
  }

  protected storeGroup(memory: Memory, a: VectorRegister, group: number): void {
    this.body.storeGroup("vextractf32x4", memory, a, group);
  }

  broadcastInteger(d: Vector, a: Integer): void {
    const from = this.read(a);
    this.body.vpbroadcastdGpr(this.writeVector(d), from);
  }

  fmaBroadcast(accumulator: Vector, a: Vector, base: Integer, offset: number): void {
    const memory = { ...this.memory(base, offset), broadcast: true };
    this.body.three("vfmadd231ps", this.readVector(accumulator), this.readVector(a), memory);
  }

  selectLess(d: Vector, a: Vector, b: Vector, x: Vector, y: Vector): void {
    this.body.compareToMask(someLanes, this.readVector(a), this.readVector(b), lessThan);
    const [less, other] = [this.readVector(x), this.readVector(y)];
    this.body.three("vblendmps", this.writeVector(d), other, less, { mask: someLanes });
  }
}

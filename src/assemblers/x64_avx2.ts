/**
 * The vector machine in AVX2 with FMA: 8 lanes, 16 registers, comparison results for parts of vectors.
 * @module
 */
import type { Kernel } from "../kernels/kernel.ts";
import type { Integer, Vector } from "./vector_machine.ts";
import type { X64ConstantPool } from "./x64_constants.ts";
import { type Memory, type VectorRegister, xmm, ymm } from "./x64_operands.ts";
import { X64VectorEmitter } from "./x64_vectors.ts";

/** "a < b", false where one is NaN, quiet. */
const lessThan = 0x11;

/** Emits one kernel for AVX2. */
export class Avx2Emitter extends X64VectorEmitter {
  readonly isa = "avx2";
  readonly lanes = 8;
  protected readonly bitwise = { and: "vpand", or: "vpor", xor: "vpxor" } as const;
  protected readonly exchanges = [
    (d: VectorRegister, a: VectorRegister) => this.body.threeImmediate("vperm2f128", d, a, a, 0x01),
    (d: VectorRegister, a: VectorRegister) => this.body.twoImmediate("vpermilps", d, a, 0b01_00_11_10),
    (d: VectorRegister, a: VectorRegister) => this.body.twoImmediate("vpermilps", d, a, 0b10_11_00_01),
  ];

  constructor(kernel: Kernel, constants: X64ConstantPool, protected readonly vnni: boolean) {
    super(kernel, constants, 16);
  }

  protected vectorRegister(number: number): VectorRegister {
    return ymm(number);
  }

  /** selector = all ones in the lanes below count. */
  #selectFirst(selector: VectorRegister, count: Integer): void {
    const counts = xmm(selector.number);
    this.body.vmovd(counts, this.read(count));
    this.body.vpbroadcastdLane(selector, counts);
    this.body.three("vpcmpgtd", selector, selector, this.constants.laneNumbers);
  }

  loadFirst(d: Vector, base: Integer, offset: number, count: Integer): void {
    const memory = this.memory(base, offset);
    const selector = this.writeVector(d);
    this.#selectFirst(selector, count);
    this.body.vmaskmovpsLoad(selector, selector, memory);
  }

  storeFirst(base: Integer, offset: number, a: Vector, count: Integer): void {
    const memory = this.memory(base, offset);
    const from = this.readVector(a);
    this.withTemporaries(1, [a], (selector) => {
      this.#selectFirst(selector, count);
      this.body.vmaskmovpsStore(memory, selector, from);
    });
  }

  protected storeGroup(memory: Memory, a: VectorRegister, group: number): void {
    this.body.storeGroup("vextractf128", memory, a, group);
  }

  broadcastInteger(d: Vector, a: Integer): void {
    const from = this.read(a);
    const to = this.writeVector(d);
    this.body.vmovd(xmm(to.number), from);
    this.body.vpbroadcastdLane(to, xmm(to.number));
  }

  fmaBroadcast(accumulator: Vector, a: Vector, base: Integer, offset: number): void {
    const memory = this.memory(base, offset);
    const [sum, factor] = [this.readVector(accumulator), this.readVector(a)];
    this.withTemporaries(1, [accumulator, a], (element) => {
      this.body.load("vbroadcastss", element, memory);
      this.body.three("vfmadd231ps", sum, factor, element);
    });
  }

  selectLess(d: Vector, a: Vector, b: Vector, x: Vector, y: Vector): void {
    const [left, right] = [this.readVector(a), this.readVector(b)];
    const [less, other] = [this.readVector(x), this.readVector(y)];
    const to = this.writeVector(d);
    this.withTemporaries(1, [d, a, b, x, y], (selector) => {
      this.body.threeImmediate("vcmpps", selector, left, right, lessThan);
      this.body.vblendvps(to, other, less, selector);
    });
  }
}

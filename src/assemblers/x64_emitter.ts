/**
 * The scalar half of the x86-64 vector machines: registers, integers, control flow and arguments.
 *
 * Registers: rdi holds the address of the argument words to the end, rax is scratch, rsp the stack; kernels get the
 * other 13 integers. Those the caller wants back are saved when used.
 * @module
 */
import type { ArgumentReader, ArgumentSpec, Kernel } from "../kernels/kernel.ts";
import type { Integer, Relation, Vector } from "./vector_machine.ts";
import type { X64ConstantPool } from "./x64_constants.ts";
import { type Condition, type Label, X64Encoder } from "./x64_encoder.ts";
import {
  at,
  type Gpr,
  gpr,
  gprs,
  type ImageMemory,
  type Memory,
  type VectorRegister,
} from "./x64_operands.ts";

/** Where the image's data holds the arena's address. */
export const arenaSlot: ImageMemory = { kind: "image memory", section: "data", offset: 0 };

/** Registers that hold kernels' integers; those that need no saving are taken first. */
const integerOrder: readonly Gpr[] = [
  gpr.rcx,
  gpr.rdx,
  gpr.rsi,
  gpr.r8,
  gpr.r9,
  gpr.r10,
  gpr.r11,
  gpr.rbx,
  gpr.rbp,
  gpr.r12,
  gpr.r13,
  gpr.r14,
  gpr.r15,
];
const calleeSaved: readonly Gpr[] = [gpr.rbx, gpr.rbp, gpr.r12, gpr.r13, gpr.r14, gpr.r15];

const scratch = gpr.rax;
const argumentWords = gpr.rdi;

/** Loop heads start at a multiple of this: one fetch window of the decoders. */
const loopAlignment = 32;

const opposite: Readonly<Record<Relation, Condition>> = {
  equal: "notEqual",
  notEqual: "equal",
  less: "greaterOrEqual",
  lessOrEqual: "greater",
  greater: "lessOrEqual",
  greaterOrEqual: "less",
};

type Register = Vector | Integer;

/** Emits one kernel. Registers are checked on every use; the checks cost nothing at run time. */
export abstract class X64Emitter {
  /** Instruction set in the words of reports. */
  abstract readonly isa: string;
  /** Vector registers a kernel may hold at once. */
  readonly vectorRegisters: number;
  /** Integer registers a kernel may hold at once. */
  readonly integerRegisters: number = integerOrder.length;
  /** What the kernel reads its arguments with. */
  readonly argumentReader: ArgumentReader<ArgumentSpec>;

  /** The code before the body, complete after `finish`. */
  readonly prologue: X64Encoder = new X64Encoder();
  /** The code. */
  readonly body: X64Encoder = new X64Encoder();

  readonly #kernel: Kernel;
  readonly #live = new Set<Register>();
  readonly #written = new Set<Register>();
  readonly #idleIntegers = integerOrder.map(({ number }) => number).reverse();
  readonly #idleVectors: number[];
  readonly #used = new Set<number>();

  constructor(kernel: Kernel, protected readonly constants: X64ConstantPool, vectorRegisters: number) {
    this.#kernel = kernel;
    this.vectorRegisters = vectorRegisters;
    this.#idleVectors = Array.from({ length: vectorRegisters }, (_, number) => vectorRegisters - 1 - number);
    const names = Object.keys(kernel.arguments);
    const word = (name: string | number, kind: string): Memory => {
      if (kernel.arguments[name] !== kind) this.fail(`argument ${name} is not a declared ${kind}`);
      return at(argumentWords, 4 * names.indexOf(String(name)));
    };
    this.argumentReader = {
      pointer: (name) => {
        const memory = word(name, "pointer");
        const d = this.integer();
        this.body.load32(this.write(d), memory);
        this.body.arithmetic("add", this.write(d), arenaSlot);
        return d;
      },
      integer: (name) => {
        const memory = word(name, "integer");
        const d = this.integer();
        this.body.load32Signed(this.write(d), memory);
        return d;
      },
      float: (name) => {
        const memory = word(name, "float");
        const d = this.vector();
        this.body.load("vbroadcastss", this.writeVector(d), memory);
        return d;
      },
    };
  }

  /** Ends the function. Throws when a register is still held. */
  finish(): void {
    if (this.#live.size > 0) {
      const count = (kind: Register["kind"]) =>
        [...this.#live].filter((register) => register.kind === kind).length;
      this.fail(`${count("vector")} vector and ${count("integer")} integer registers were never freed`);
    }
    const saved = calleeSaved.filter(({ number }) => this.#used.has(number));
    const { prologue, body } = this;
    for (const register of saved) prologue.push(register);
    prologue.mov32(argumentWords, argumentWords);
    prologue.arithmetic("add", argumentWords, arenaSlot);
    body.vzeroupper();
    for (const register of saved.toReversed()) body.pop(register);
    body.ret();
  }

  /** Whether another kernel has the same code. */
  equals(other: X64Emitter): boolean {
    const signature = ({ prologue, body }: X64Emitter) =>
      [prologue, body].map((part) => [part.finish().toBase64(), JSON.stringify(part.fixups)]).join();
    return signature(this) === signature(other);
  }

  // Registers -------------------------------------------------------------------------------------------

  /** The vector register of that number, as wide as this machine's vectors. */
  protected abstract vectorRegister(number: number): VectorRegister;

  vector(): Vector {
    const index = this.#idleVectors.pop();
    if (index === undefined) this.fail(`more than ${this.vectorRegisters} vector registers held at once`);
    return this.#take({ kind: "vector", index });
  }

  integer(): Integer {
    const index = this.#idleIntegers.pop();
    if (index === undefined) this.fail(`more than ${this.integerRegisters} integer registers held at once`);
    this.#used.add(index);
    return this.#take({ kind: "integer", index });
  }

  #take<R extends Register>(register: R): R {
    this.#live.add(register);
    return register;
  }

  free(...registers: Register[]): void {
    for (const register of registers) {
      if (!this.#live.delete(register)) this.fail(`${register.kind} register freed twice`);
      this.#written.delete(register);
      (register.kind === "vector" ? this.#idleVectors : this.#idleIntegers).push(register.index);
    }
  }

  /** Throws a TypeError that names the kernel and the instruction set. */
  protected fail(problem: string): never {
    throw new TypeError(`Cannot assemble ${this.#kernel.key} for ${this.isa}: ${problem}`);
  }

  #checkLive(register: Register): void {
    if (!this.#live.has(register)) this.fail(`${register.kind} register used after it was freed`);
  }

  #checkWritten(register: Register): void {
    this.#checkLive(register);
    if (!this.#written.has(register)) this.fail(`${register.kind} register read before it was written`);
  }

  #markWritten(register: Register): void {
    this.#checkLive(register);
    this.#written.add(register);
  }

  /** The register of an operand. */
  protected read(a: Integer): Gpr {
    this.#checkWritten(a);
    return gprs[a.index];
  }

  /** The register of a destination. */
  protected write(d: Integer): Gpr {
    this.#markWritten(d);
    return gprs[d.index];
  }

  /** The register of a vector operand. */
  protected readVector(a: Vector): VectorRegister {
    this.#checkWritten(a);
    return this.vectorRegister(a.index);
  }

  /** The register of a vector destination. */
  protected writeVector(d: Vector): VectorRegister {
    this.#markWritten(d);
    return this.vectorRegister(d.index);
  }

  /** Checked memory operand. */
  protected memory(base: Integer, offset: number): Memory {
    if (!Number.isInteger(offset) || offset < 0 || offset >= 2 ** 31) {
      this.fail(`memory offset ${offset}, wanted an integer from 0 to 2^31 - 1`);
    }
    return at(this.read(base), offset);
  }

  /**
   * Runs `emit` with vector registers that hold nothing of the kernel's: idle ones, and when there are too few, ones
   * outside `keep` that are saved on the stack meanwhile.
   */
  protected withTemporaries(
    count: number,
    keep: readonly Vector[],
    emit: (...registers: VectorRegister[]) => void,
  ): void {
    const numbers = this.#idleVectors.slice(-count);
    const kept = new Set(keep.map(({ index }) => index));
    const borrowed: VectorRegister[] = [];
    for (let number = 0; numbers.length < count; number++) {
      if (kept.has(number) || numbers.includes(number)) continue;
      borrowed.push(this.vectorRegister(number));
      numbers.push(number);
    }
    const bytes = borrowed.reduce((sum, { bits }) => sum + bits / 8, 0);
    const slots = borrowed.map((register, index) => ({
      register,
      slot: at(gpr.rsp, index * register.bits / 8),
    }));
    if (bytes > 0) this.body.arithmetic("sub", gpr.rsp, bytes);
    for (const { register, slot } of slots) this.body.store("vmovups", slot, register);
    emit(...numbers.map((number) => this.vectorRegister(number)));
    for (const { register, slot } of slots) this.body.load("vmovups", register, slot);
    if (bytes > 0) this.body.arithmetic("add", gpr.rsp, bytes);
  }

  // Constants -------------------------------------------------------------------------------------------

  #constant(value: number): number {
    if (!Number.isInteger(value) || value < -(2 ** 31) || value >= 2 ** 32) {
      this.fail(`constant ${value} is not a 32-bit integer`);
    }
    return value | 0;
  }

  /** Checked distance of a shift. */
  protected bits(bits: number): number {
    if (!Number.isInteger(bits) || bits < 0 || bits > 31) this.fail(`shift by ${bits} bits, wanted 0 to 31`);
    return bits;
  }

  // Integers --------------------------------------------------------------------------------------------

  setInteger(d: Integer, value: number): void {
    this.body.movImmediate(this.write(d), this.#constant(value));
  }

  moveInteger(d: Integer, a: Integer): void {
    this.#copy(this.read(a), this.write(d));
  }

  #copy(from: Gpr, to: Gpr): void {
    if (from !== to) this.body.mov(to, from);
  }

  addInteger(d: Integer, a: Integer, b: Integer | number): void {
    const left = this.read(a);
    if (typeof b === "number") {
      const value = this.#constant(b);
      const target = this.write(d);
      if (target !== left) this.body.lea(target, at(left, value));
      else if (value !== 0) this.body.arithmetic("add", target, value);
      return;
    }
    const right = this.read(b);
    const target = this.write(d);
    if (target === left) this.body.arithmetic("add", target, right);
    else if (target === right) this.body.arithmetic("add", target, left);
    else this.body.lea(target, { ...at(left), index: right });
  }

  subtractInteger(d: Integer, a: Integer, b: Integer | number): void {
    const left = this.read(a);
    const right = typeof b === "number" ? this.#constant(b) : this.read(b);
    const target = this.write(d);
    if (target === right && target !== left) {
      this.body.mov(scratch, left);
      this.body.arithmetic("sub", scratch, right);
      this.body.mov(target, scratch);
      return;
    }
    this.#copy(left, target);
    if (right !== 0) this.body.arithmetic("sub", target, right);
  }

  multiplyInteger(d: Integer, a: Integer, b: Integer | number): void {
    const left = this.read(a);
    if (typeof b === "number") {
      const value = this.#constant(b);
      const bits = Math.log2(value);
      if (value > 0 && Number.isInteger(bits)) return this.shiftLeftInteger(d, a, bits);
      return this.body.imulImmediate(this.write(d), left, value);
    }
    const right = this.read(b);
    const target = this.write(d);
    if (target === right) return this.body.imul(target, left);
    this.#copy(left, target);
    this.body.imul(target, right);
  }

  shiftLeftInteger(d: Integer, a: Integer, bits: number): void {
    this.#shift("shl", d, a, bits);
  }

  shiftRightInteger(d: Integer, a: Integer, bits: number): void {
    this.#shift("shr", d, a, bits);
  }

  #shift(name: "shl" | "shr", d: Integer, a: Integer, bits: number): void {
    const left = this.read(a);
    const target = this.write(d);
    this.#copy(left, target);
    if (this.bits(bits) > 0) this.body.shift(name, target, bits);
  }

  andInteger(d: Integer, a: Integer, mask: number): void {
    const left = this.read(a);
    const target = this.write(d);
    this.#copy(left, target);
    this.body.arithmetic("and", target, this.#constant(mask));
  }

  loadI32(d: Integer, base: Integer, offset: number): void {
    const memory = this.memory(base, offset);
    this.body.load32Signed(this.write(d), memory);
  }

  loadU16(d: Integer, base: Integer, offset: number): void {
    const memory = this.memory(base, offset);
    this.body.load16(this.write(d), memory);
  }

  storeI32(base: Integer, offset: number, a: Integer): void {
    this.body.store32(this.memory(base, offset), this.read(a));
  }

  prefetch(base: Integer, offset: number): void {
    this.body.prefetcht0(this.memory(base, offset));
  }

  // Control ---------------------------------------------------------------------------------------------

  #compare(a: Integer, b: Integer | number): void {
    const left = this.read(a);
    if (typeof b === "number") {
      const value = this.#constant(b);
      if (value === 0) this.body.test(left);
      else this.body.arithmetic("cmp", left, value);
    } else {
      this.body.arithmetic("cmp", left, this.read(b));
    }
  }

  #loopHead(): Label {
    const head: Label = {};
    this.body.align(loopAlignment);
    this.body.bind(head);
    return head;
  }

  forRange(
    index: Integer,
    from: Integer | number,
    to: Integer | number,
    step: Integer | number,
    body: () => void,
  ): void {
    if (typeof step === "number" && step <= 0) this.fail(`loop step ${step}, wanted more than 0`);
    if (typeof from === "number") this.setInteger(index, from);
    else this.moveInteger(index, from);
    const isKnown = typeof from === "number" && typeof to === "number";
    if (isKnown && from >= to) return;
    const end: Label = {};
    if (!isKnown) {
      this.#compare(index, to);
      this.body.jump(end, "greaterOrEqual");
    }
    const head = this.#loopHead();
    body();
    this.addInteger(index, index, step);
    this.#compare(index, to);
    this.body.jump(head, "less");
    this.body.bind(end);
  }

  repeat(count: Integer, body: () => void): void {
    const end: Label = {};
    this.body.test(this.read(count));
    this.body.jump(end, "lessOrEqual");
    const head = this.#loopHead();
    body();
    this.body.arithmetic("sub", this.read(count), 1);
    this.body.jump(head, "notEqual");
    this.body.bind(end);
  }

  when(a: Integer, relation: Relation, b: Integer | number, then: () => void, otherwise?: () => void): void {
    const [skipped, end]: Label[] = [{}, {}];
    this.#compare(a, b);
    this.body.jump(skipped, opposite[relation]);
    then();
    if (otherwise) {
      this.body.jump(end);
      this.body.bind(skipped);
      otherwise();
      this.body.bind(end);
    } else {
      this.body.bind(skipped);
    }
  }
}

/**
 * The vector machine: the small instruction set every kernel is written in.
 *
 * A kernel is a TypeScript function that calls these methods; an assembler (WebAssembly today) turns the
 * calls into code. Emitting is pure: nothing here touches memory, threads or devices.
 *
 * Registers are explicit. A kernel takes them with `vector()` and `integer()` and returns them with `free()`;
 * a machine with too few throws while assembling, so register pressure is found by the tests and not by a spill.
 * Kernels size their register blocks from `lanes` and `vectorRegisters`.
 *
 * Numbers are little-endian. Addresses are `Integer` registers in bytes plus a constant offset; loads and
 * stores need no alignment beyond the element's. Conventions that differ between processors are left open on
 * purpose and are marked *unspecified*: a kernel must not depend on them.
 * @module
 */

/** A register of `lanes` 32-bit elements, read as f32 or i32 by the instruction that uses it. */
export interface Vector {
  readonly kind: "vector";
  readonly index: number;
}

/** A pointer-sized integer register: 32-bit in WebAssembly, 64-bit on x86-64. Arithmetic must stay in 31 bits. */
export interface Integer {
  readonly kind: "integer";
  readonly index: number;
}

/** The operands of `storeColumns`. */
export type FourVectors = readonly [Vector, Vector, Vector, Vector];

/** Signed comparisons between integers. */
export type Relation = "equal" | "notEqual" | "less" | "lessOrEqual" | "greater" | "greaterOrEqual";

/** What kernels are written against. Destinations come first; a destination may also be an operand. */
export interface VectorMachine {
  /** Instruction set in the words of reports, for example `wasm-relaxed-simd`. */
  readonly isa: string;
  /** 32-bit elements in a vector register. A power of two, at least 4. */
  readonly lanes: number;
  /** Vector registers a kernel may hold at once without spilling. */
  readonly vectorRegisters: number;
  /** Integer registers a kernel may hold at once, the arguments pointer already subtracted. */
  readonly integerRegisters: number;

  // Registers -------------------------------------------------------------------------------------------

  /** Takes a vector register. Its content is undefined until written. */
  vector(): Vector;
  /** Takes an integer register. Its content is undefined until written. */
  integer(): Integer;
  /** Gives registers back. Using one afterwards is an error. */
  free(...registers: (Vector | Integer)[]): void;

  // Integers --------------------------------------------------------------------------------------------

  /** d = value */
  setInteger(d: Integer, value: number): void;
  /** d = a */
  moveInteger(d: Integer, a: Integer): void;
  /** d = a + b */
  addInteger(d: Integer, a: Integer, b: Integer | number): void;
  /** d = a − b */
  subtractInteger(d: Integer, a: Integer, b: Integer | number): void;
  /** d = a · b */
  multiplyInteger(d: Integer, a: Integer, b: Integer | number): void;
  /** d = a << bits */
  shiftLeftInteger(d: Integer, a: Integer, bits: number): void;
  /** d = a >>> bits, for a ≥ 0 */
  shiftRightInteger(d: Integer, a: Integer, bits: number): void;
  /** d = a & mask */
  andInteger(d: Integer, a: Integer, mask: number): void;
  /** d = the signed 32-bit integer at base + offset */
  loadI32(d: Integer, base: Integer, offset: number): void;
  /** d = the unsigned 16-bit integer at base + offset */
  loadU16(d: Integer, base: Integer, offset: number): void;
  /** Stores the low 32 bits of a at base + offset. */
  storeI32(base: Integer, offset: number, a: Integer): void;

  // Control ---------------------------------------------------------------------------------------------

  /** Runs body for index = from, from + step, … while index < to (signed). `index` is readable in the body. */
  forRange(
    index: Integer,
    from: Integer | number,
    to: Integer | number,
    step: Integer | number,
    body: () => void,
  ): void;
  /** Runs body `count` times, not at all when count ≤ 0. Cheaper than forRange; destroys `count`. */
  repeat(count: Integer, body: () => void): void;
  /** Runs `then` when the relation holds, else `otherwise`. */
  when(a: Integer, relation: Relation, b: Integer | number, then: () => void, otherwise?: () => void): void;

  // Memory ----------------------------------------------------------------------------------------------

  /** Loads `lanes` elements from base + offset. */
  load(d: Vector, base: Integer, offset: number): void;
  /** Stores `lanes` elements at base + offset. */
  store(base: Integer, offset: number, a: Vector): void;
  /**
   * Says that the cache line at base + offset will be used soon. Changes nothing else; the address may be anywhere.
   * For what the hardware does not foresee: rows a page or more apart. No-op in WebAssembly, which has none.
   */
  prefetch(base: Integer, offset: number): void;
  /** Loads the first `count` elements (0 ≤ count ≤ lanes), zero in the others; touches no byte beyond them. */
  loadFirst(d: Vector, base: Integer, offset: number, count: Integer): void;
  /** Stores the first `count` elements (0 ≤ count ≤ lanes); touches no byte beyond them. */
  storeFirst(base: Integer, offset: number, a: Vector, count: Integer): void;
  /**
   * Stores four vectors as columns: lane i of rows[j] goes to base + offset + i · stride + 4 · j. The registers of
   * `rows` are different ones, and undefined afterwards. Transposes a matrix in strips of four.
   */
  storeColumns(base: Integer, offset: number, stride: number, rows: FourVectors): void;
  /** Every lane = the 32-bit element at base + offset. */
  broadcast(d: Vector, base: Integer, offset: number): void;
  /** Every lane = the low 32 bits of an integer register. */
  broadcastInteger(d: Vector, a: Integer): void;
  /** Stores lane 0 (one 32-bit element) at base + offset. */
  storeLane0(base: Integer, offset: number, a: Vector): void;

  // f32 arithmetic --------------------------------------------------------------------------------------

  /** Every lane = value, rounded to f32. */
  constantF32(d: Vector, value: number): void;
  /** d = a */
  move(d: Vector, a: Vector): void;
  /** d = a + b */
  add(d: Vector, a: Vector, b: Vector): void;
  /** d = a − b */
  subtract(d: Vector, a: Vector, b: Vector): void;
  /** d = a · b */
  multiply(d: Vector, a: Vector, b: Vector): void;
  /** d = a / b, correctly rounded */
  divide(d: Vector, a: Vector, b: Vector): void;
  /** d = √a, correctly rounded */
  squareRoot(d: Vector, a: Vector): void;
  /** d = min(a, b). The result with a NaN operand is *unspecified*. */
  minimum(d: Vector, a: Vector, b: Vector): void;
  /** d = max(a, b). The result with a NaN operand is *unspecified*. */
  maximum(d: Vector, a: Vector, b: Vector): void;
  /** accumulator += a · b. One rounding where the machine fuses, two where it cannot: *unspecified*. */
  fma(accumulator: Vector, a: Vector, b: Vector): void;
  /** accumulator −= a · b, rounded as `fma`. */
  fmaNegated(accumulator: Vector, a: Vector, b: Vector): void;
  /** accumulator += a · (`lanes` elements at base + offset), rounded as `fma`: `load` and `fma` without a register. */
  fmaLoad(accumulator: Vector, a: Vector, base: Integer, offset: number): void;
  /** accumulator += a · (the element at base + offset), rounded as `fma`: `broadcast` and `fma` in one. */
  fmaBroadcast(accumulator: Vector, a: Vector, base: Integer, offset: number): void;
  /** d = a < b ? x : y, lane by lane; y where a or b is NaN. */
  selectLess(d: Vector, a: Vector, b: Vector, x: Vector, y: Vector): void;
  /** Every lane of d = the sum of all lanes of a, added in a fixed tree: halves, quarters, … */
  sumLanes(d: Vector, a: Vector): void;
  /** Every lane of d = the largest lane of a. NaN: *unspecified*. */
  maximumLanes(d: Vector, a: Vector): void;

  // i32 arithmetic, wrapping ----------------------------------------------------------------------------

  /** Every lane = value. */
  constantI32(d: Vector, value: number): void;
  /** Lane i = i. */
  laneIndex(d: Vector): void;
  /** d = a + b */
  addI32(d: Vector, a: Vector, b: Vector): void;
  /** d = a − b */
  subtractI32(d: Vector, a: Vector, b: Vector): void;
  /** d = low 32 bits of a · b */
  multiplyI32(d: Vector, a: Vector, b: Vector): void;
  /** d = a & b */
  and(d: Vector, a: Vector, b: Vector): void;
  /** d = a | b */
  or(d: Vector, a: Vector, b: Vector): void;
  /** d = a ^ b */
  xor(d: Vector, a: Vector, b: Vector): void;
  /** d = a << bits */
  shiftLeftI32(d: Vector, a: Vector, bits: number): void;
  /** d = a >>> bits */
  shiftRightI32(d: Vector, a: Vector, bits: number): void;
  /** d = a as f32, for signed a */
  i32ToF32(d: Vector, a: Vector): void;
  /** d = a rounded to the nearest integer, ties to even. NaN and |a| ≥ 2³¹: *unspecified*. */
  f32ToI32(d: Vector, a: Vector): void;
  /** accumulator lane i += Σ_{j<4} (unsigned byte 4i+j of a) · (signed byte 4i+j of b), exact in 32 bits. */
  dotU8S8(accumulator: Vector, a: Vector, b: Vector): void;
}

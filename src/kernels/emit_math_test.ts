/**
 * The stated errors of the helpers, over dense sweeps, on a machine that computes each instruction at once.
 * Its vectors have 4096 lanes, and it rounds `fma` once or twice on request: both kinds of machine are covered
 * on any host.
 * @module
 */
import assert from "node:assert/strict";
import type { Vector } from "../assemblers/vector_machine.ts";
import { emitErf, emitExp, emitGelu, emitGeluDerivative, emitTanh, type MathMachine } from "./emit_math.ts";
import { erf, gelu, geluDerivative } from "./gelu/reference.ts";

const lanes = 4096;

/** Executes instructions as they are emitted, and counts the registers in use. */
class EagerMachine implements MathMachine {
  readonly #registers: Float32Array[] = [];
  readonly #free: number[] = [];
  readonly #fused: boolean;
  #held = 0;
  /** Most registers held at once. */
  mostHeld = 0;

  constructor(fused: boolean) {
    this.#fused = fused;
  }

  /** Registers held now. */
  get held(): number {
    return this.#held;
  }

  f32({ index }: Vector): Float32Array {
    return this.#registers[index];
  }

  i32({ index }: Vector): Int32Array {
    return new Int32Array(this.#registers[index].buffer);
  }

  vector(): Vector {
    const index = this.#free.pop() ?? this.#registers.push(new Float32Array(lanes)) - 1;
    this.#registers[index].fill(NaN);
    this.mostHeld = Math.max(this.mostHeld, ++this.#held);
    return { kind: "vector", index };
  }

  free(...registers: Vector[]): void {
    for (const { index } of registers) {
      assert(!this.#free.includes(index), "freed twice");
      this.#free.push(index);
      this.#held--;
    }
  }

  constantF32(d: Vector, value: number): void {
    this.f32(d).fill(value);
  }

  move(d: Vector, a: Vector): void {
    this.f32(d).set(this.f32(a));
  }

  add(d: Vector, a: Vector, b: Vector): void {
    const [x, y] = [this.f32(a), this.f32(b)];
    this.#each(d, (i) => x[i] + y[i]);
  }

  multiply(d: Vector, a: Vector, b: Vector): void {
    const [x, y] = [this.f32(a), this.f32(b)];
    this.#each(d, (i) => x[i] * y[i]);
  }

  divide(d: Vector, a: Vector, b: Vector): void {
    const [x, y] = [this.f32(a), this.f32(b)];
    this.#each(d, (i) => x[i] / y[i]);
  }

  fma(accumulator: Vector, a: Vector, b: Vector): void {
    const [sum, x, y] = [this.f32(accumulator), this.f32(a), this.f32(b)];
    this.#each(accumulator, (i) => sum[i] + this.#product(x[i], y[i]));
  }

  fmaNegated(accumulator: Vector, a: Vector, b: Vector): void {
    const [sum, x, y] = [this.f32(accumulator), this.f32(a), this.f32(b)];
    this.#each(accumulator, (i) => sum[i] - this.#product(x[i], y[i]));
  }

  selectLess(d: Vector, a: Vector, b: Vector, x: Vector, y: Vector): void {
    const [left, right] = [this.f32(a), this.f32(b)];
    const [yes, no] = [this.i32(x), this.i32(y)];
    const target = this.i32(d);
    for (let i = 0; i < lanes; i++) target[i] = left[i] < right[i] ? yes[i] : no[i];
  }

  f32ToI32(d: Vector, a: Vector): void {
    const [source, target] = [this.f32(a), this.i32(d)];
    for (let i = 0; i < lanes; i++) {
      const floor = Math.floor(source[i]);
      const rest = source[i] - floor;
      const up = rest > 0.5 || (rest === 0.5 && floor % 2 !== 0);
      // What the contract leaves open is made as harmful as it can be: all ones turn NaN bits into others.
      target[i] = Math.abs(source[i]) < 2 ** 31 ? floor + (up ? 1 : 0) : -1;
    }
  }

  i32ToF32(d: Vector, a: Vector): void {
    const source = this.i32(a);
    this.#each(d, (i) => source[i]);
  }

  addI32(d: Vector, a: Vector, b: Vector): void {
    const [x, y, target] = [this.i32(a), this.i32(b), this.i32(d)];
    for (let i = 0; i < lanes; i++) target[i] = x[i] + y[i];
  }

  shiftLeftI32(d: Vector, a: Vector, bits: number): void {
    const [source, target] = [this.i32(a), this.i32(d)];
    for (let i = 0; i < lanes; i++) target[i] = source[i] << bits;
  }

  /** The product of two f32 is exact in float64. */
  #product(a: number, b: number): number {
    return this.#fused ? a * b : Math.fround(a * b);
  }

  #each(d: Vector, value: (lane: number) => number): void {
    const target = this.f32(d);
    for (let i = 0; i < lanes; i++) target[i] = value(i);
  }
}

type Emit = (vm: MathMachine, d: Vector, x: Vector) => void;

/** Runs the emitted code over a list of numbers, with and without fusing, in place and not; all must be tidy. */
function evaluate(emit: Emit, values: Float32Array, visit: (x: number, y: number) => void): number {
  let temporaries = 0;
  for (const fused of [true, false]) {
    for (const inPlace of [true, false]) {
      const vm = new EagerMachine(fused);
      const x = vm.vector();
      const d = inPlace ? x : vm.vector();
      const operands = vm.held;
      for (let begin = 0; begin < values.length; begin += lanes) {
        const part = values.subarray(begin, begin + lanes);
        vm.f32(x).set(part);
        emit(vm, d, x);
        const results = vm.f32(d);
        part.forEach((value, lane) => visit(value, results[lane]));
      }
      assert.equal(vm.held, operands, "registers left over");
      temporaries = Math.max(temporaries, vm.mostHeld - operands);
    }
  }
  return temporaries;
}

/** Evenly spaced numbers of [low, high], and geometrically spaced ones of either sign down to 1e-30. */
function sweep(low: number, high: number): Float32Array {
  const even = Array.from({ length: 60_000 }, (_, i) => low + ((high - low) * i) / 59_999);
  const fine = Array.from({ length: 10_000 }, (_, i) => 10 ** (-30 + (30 + Math.log10(high)) * (i / 9_999)));
  return Float32Array.from([...even, ...fine, ...fine.filter((x) => -x >= low).map((x) => -x), 0, -0]);
}

interface Case {
  readonly name: string;
  readonly emit: Emit;
  readonly truth: (x: number) => number;
  readonly range: readonly [number, number];
  /** Allowed error of a result, from the doc comment. */
  readonly tolerance: (x: number, truth: number) => number;
  readonly temporaries: number;
}

const cases: Case[] = [
  {
    name: "emitExp",
    emit: emitExp,
    truth: Math.exp,
    range: [-87.3365, 88.7228],
    tolerance: (_, truth) => 8.1e-8 * truth,
    temporaries: 4,
  },
  {
    name: "emitErf",
    emit: emitErf,
    truth: erf,
    range: [-6, 6],
    tolerance: (_, truth) => 3.1e-7 * Math.abs(truth),
    temporaries: 4,
  },
  {
    name: "emitTanh",
    emit: emitTanh,
    truth: Math.tanh,
    range: [-12, 12],
    tolerance: (_, truth) => 3.1e-7 * Math.abs(truth),
    temporaries: 4,
  },
  {
    name: "emitGelu",
    emit: emitGelu,
    truth: gelu,
    range: [-9, 9],
    tolerance: (x) => 2.1e-7 * Math.abs(x),
    temporaries: 5,
  },
  {
    name: "emitGeluDerivative",
    emit: emitGeluDerivative,
    truth: geluDerivative,
    range: [-9, 9],
    tolerance: () => 2.2e-7,
    temporaries: 6,
  },
];

for (const { name, emit, truth, range, tolerance, temporaries } of cases) {
  Deno.test(`${name} stays within its stated error and registers`, () => {
    let worst = { ratio: -1, x: 0, y: 0 };
    const used = evaluate(emit, sweep(...range), (x, y) => {
      const error = Math.abs(y - truth(x));
      const ratio = error === 0 ? 0 : error / tolerance(x, truth(x));
      if (!(ratio <= worst.ratio)) worst = { ratio, x, y };
    });
    const { ratio, x, y } = worst;
    assert(ratio <= 1, `${name}(${x}) is ${y}, wanted ${truth(x)}: ${ratio} times the stated error`);
    assert.equal(used, temporaries);
  });
}

/** Bit for bit, but any NaN is a NaN and zeros are equal. */
function assertPoints(emit: Emit, points: [x: number, wanted: number][]): void {
  const values = Float32Array.from(points, ([x]) => x);
  const wanted = new Map(points.map(([x, y]) => [Math.fround(x), y]));
  evaluate(emit, values, (x, y) => {
    const w = wanted.get(x)!;
    assert(y === w || (Number.isNaN(y) && Number.isNaN(w)), `at ${x}: ${y}, wanted ${w}`);
  });
}

Deno.test("the helpers give limits at infinities, NaN for NaN, and saturate exactly", () => {
  assertPoints(emitExp, [
    [0, 1],
    [-0, 1],
    [-Infinity, 0],
    [Infinity, Infinity],
    [NaN, NaN],
    [-87.34, 0],
    [-1e30, 0],
    [-3e38, 0],
    [88.73, Infinity],
    [3e38, Infinity],
  ]);
  for (const emit of [emitErf, emitTanh]) {
    assertPoints(emit, [
      [0, 0],
      [8.1, 1],
      [-8.1, -1],
      [3e38, 1],
      [-3e38, -1],
      [Infinity, 1],
      [-Infinity, -1],
      [NaN, NaN],
    ]);
  }
  assertPoints(emitGelu, [
    [0, 0],
    [6, 6],
    [-6, 0],
    [1e38, Math.fround(1e38)],
    [-1e38, 0],
    [Infinity, Infinity],
    [-Infinity, NaN],
    [NaN, NaN],
  ]);
  assertPoints(emitGeluDerivative, [
    [0, 0.5],
    [20, 1],
    [-20, 0],
    [1e38, 1],
    [-1e38, 0],
    [Infinity, NaN],
    [-Infinity, NaN],
    [NaN, NaN],
  ]);
});

/**
 * Transcendental functions, written once in the instructions of the vector machine: exp, erf, tanh, GELU.
 *
 * Each helper emits straight-line code for one vector. The destination may be the operand itself; temporaries are
 * taken and freed inside, at most the number stated. Constants are set where they are used: assemblers keep
 * them in the instruction stream or in memory, while registers are what the callers' blocks need.
 *
 * Every lane obeys the same rules as the scalar function: NaN gives NaN, infinities give the limit or, where the
 * formula has none (GELU at −∞ is −∞ · 0), NaN. Lanes never mix.
 *
 * The stated errors are the largest seen by the sweep in `emit_math_test.ts`, rounded up, over both ways of
 * rounding `fma`; "relative" means relative to the true value, "absolute" is in the units of the result.
 * @module
 */
import type { Vector, VectorMachine } from "../assemblers/vector_machine.ts";

/** The instructions these helpers use, so that a test can supply them without being a whole machine. */
export type MathMachine = Pick<
  VectorMachine,
  | "vector"
  | "free"
  | "constantF32"
  | "move"
  | "add"
  | "multiply"
  | "divide"
  | "fma"
  | "fmaNegated"
  | "selectLess"
  | "f32ToI32"
  | "i32ToF32"
  | "addI32"
  | "shiftLeftI32"
>;

/** A polynomial in ascending powers. */
type Polynomial = readonly number[];

/** x · numerator(x²) / denominator(x²) for |x| < bound, ±1 beyond: the shape of erf and tanh. */
export interface Sigmoid {
  readonly numerator: Polynomial;
  readonly denominator: Polynomial;
  readonly bound: number;
}

/**
 * exp(r) = 1 + r + r² · p(r) for |r| ≤ ln 2 / 2.
 * Source: the Cephes mathematical library (S. L. Moshier), `expf`.
 */
const expTail: Polynomial = [
  5.0000001201e-1,
  1.6666665459e-1,
  4.1665795894e-2,
  8.3334519073e-3,
  1.3981999507e-3,
  1.9875691500e-4,
];

/** ln 2 in two parts, also from Cephes: the first has nine bits, so its product with an exponent is exact. */
const ln2High = 0.693359375;
const ln2Low = -2.12194440e-4;

/** Largest and smallest x with a finite, normal exp(x): 2^−126 ≤ exp(x) < 2^128. */
const expLowest = -87.33654;
const expBound = 88.722839;

/** Source: OpenXLA, `ErfImpl32Cephes`. At the bound 1 − erf(x) is half a unit in the last place of 1. */
export const erf: Sigmoid = {
  numerator: [
    1.128379143519084,
    0.18520832239976145,
    0.050955695062380861,
    0.0034082910107109506,
    0.00022905065861350646,
  ],
  denominator: [
    1,
    0.49746925110067538,
    0.11098505178285362,
    0.014070470171167667,
    0.0010179625278914885,
    0.000023547966471313185,
    -1.1791602954361697e-7,
  ],
  bound: 3.832506856900711,
};

/** erf(x/√2) as a function of x: powers of ½ move into the coefficients without rounding. */
const erfOfHalfSquare: Sigmoid = {
  numerator: erf.numerator.map((coefficient, power) => coefficient * Math.SQRT1_2 * 2 ** -power),
  denominator: erf.denominator.map((coefficient, power) => coefficient * 2 ** -power),
  bound: erf.bound * Math.SQRT2,
};

/** Source: Eigen, `generic_fast_tanh_float`, with its bound for machines without fused multiply-add. */
export const tanh: Sigmoid = {
  numerator: [
    4.89352455891786e-3,
    6.37261928875436e-4,
    1.48572235717979e-5,
    5.12229709037114e-8,
    -8.60467152213735e-11,
    2.00018790482477e-13,
    -2.76076847742355e-16,
  ],
  denominator: [4.89352518554385e-3, 2.26843463243900e-3, 1.18534705686654e-4, 1.19825839466702e-6],
  bound: 7.99881172180175781,
};

/**
 * d = exp(x): relative error ≤ 8.1e-8. Four temporaries.
 *
 * exp(−∞) = 0, results below 2^−126 are 0, results from 2^128 on are +∞, NaN stays NaN.
 */
export function emitExp(vm: MathMachine, d: Vector, x: Vector): void {
  const exponent = vm.vector();
  const r = vm.vector();
  const a = vm.vector();
  const b = vm.vector();

  // x = exponent · ln 2 + r
  vm.constantF32(a, Math.LOG2E);
  vm.multiply(a, a, x);
  vm.f32ToI32(exponent, a);
  vm.i32ToF32(a, exponent);
  vm.move(r, x);
  vm.constantF32(b, ln2High);
  vm.fmaNegated(r, a, b);
  vm.constantF32(b, ln2Low);
  vm.fmaNegated(r, a, b);

  const [tail, spare] = emitPolynomial(vm, a, b, r, expTail);
  vm.multiply(spare, r, r);
  vm.fma(r, spare, tail);
  vm.constantF32(a, 1);
  vm.add(r, r, a);

  // Adding to the exponent field multiplies by 2^exponent: exact, and within range between the two bounds below,
  // because exp(r) ≥ 1 at the lowest exponent and ≤ 1 at the highest.
  vm.shiftLeftI32(exponent, exponent, 23);
  vm.addI32(r, r, exponent);

  // x + ∞ is +∞ beyond the bound, and NaN for NaN.
  vm.constantF32(a, Infinity);
  vm.add(a, a, x);
  vm.constantF32(b, expBound);
  vm.selectLess(a, x, b, r, a);
  vm.constantF32(b, expLowest);
  vm.constantF32(r, 0);
  vm.selectLess(d, x, b, r, a);
  vm.free(exponent, r, a, b);
}

/** d = erf(x): relative error ≤ 3.1e-7, exactly ±1 from ±3.84 on. Four temporaries. */
export function emitErf(vm: MathMachine, d: Vector, x: Vector): void {
  emitSigmoid(vm, d, x, erf);
}

/** d = tanh(x): relative error ≤ 3.1e-7, exactly ±1 from ±8 on. Four temporaries. */
export function emitTanh(vm: MathMachine, d: Vector, x: Vector): void {
  emitSigmoid(vm, d, x, tanh);
}

/**
 * d = x · Φ(x) = ½x(1 + erf(x/√2)), the exact (not the tanh) form of GELU: absolute error ≤ 2.1e-7 · |x|.
 * Five temporaries. Exactly x above 5.43, exactly 0 below −5.43, NaN at −∞.
 */
export function emitGelu(vm: MathMachine, d: Vector, x: Vector): void {
  const e = vm.vector();
  emitSigmoid(vm, e, x, erfOfHalfSquare);
  const half = vm.vector();
  vm.constantF32(half, 0.5);
  vm.multiply(half, half, x);
  vm.move(d, half);
  vm.fma(d, half, e);
  vm.free(e, half);
}

/**
 * d = Φ(x) + x·φ(x), the derivative of GELU, φ(x) = exp(−x²/2)/√(2π): absolute error ≤ 2.2e-7. Six temporaries.
 * Within that error of 0 or 1 beyond ±5.43; NaN at ±∞, as the formula says.
 */
export function emitGeluDerivative(vm: MathMachine, d: Vector, x: Vector): void {
  const density = vm.vector();
  const scale = vm.vector();
  vm.constantF32(scale, -0.5);
  vm.multiply(density, x, x);
  vm.multiply(density, density, scale);
  vm.free(scale);
  emitExp(vm, density, density);
  const e = vm.vector();
  vm.constantF32(e, 1 / Math.sqrt(2 * Math.PI));
  vm.multiply(density, density, e);
  emitSigmoid(vm, e, x, erfOfHalfSquare);
  vm.multiply(density, density, x);
  const half = vm.vector();
  vm.constantF32(half, 0.5);
  vm.add(density, density, half);
  vm.fma(density, half, e);
  vm.move(d, density);
  vm.free(density, e, half);
}

/** d = the sigmoid of x. The selects come last so that saturation is exact and ∞/∞ beyond the bound is dropped. */
function emitSigmoid(
  vm: MathMachine,
  d: Vector,
  x: Vector,
  { numerator, denominator, bound }: Sigmoid,
): void {
  const square = vm.vector();
  const a = vm.vector();
  const b = vm.vector();
  const c = vm.vector();
  vm.multiply(square, x, x);
  const [top, spare] = emitPolynomial(vm, a, b, square, numerator);
  vm.multiply(top, top, x);
  const [bottom] = emitPolynomial(vm, spare, c, square, denominator);
  vm.divide(top, top, bottom);
  // NaN compares as not less, and so falls through both selects.
  vm.constantF32(square, bound);
  vm.constantF32(bottom, 1);
  vm.selectLess(top, square, x, bottom, top);
  vm.constantF32(square, -bound);
  vm.constantF32(bottom, -1);
  vm.selectLess(d, x, square, bottom, top);
  vm.free(square, a, b, c);
}

/** Horner's rule in two registers that take turns, since fma adds to a constant just set. Gives [result, other]. */
function emitPolynomial(
  vm: MathMachine,
  a: Vector,
  b: Vector,
  x: Vector,
  coefficients: Polynomial,
): [result: Vector, spare: Vector] {
  let [result, spare] = [a, b];
  vm.constantF32(result, coefficients[coefficients.length - 1]);
  for (let power = coefficients.length - 2; power >= 0; power--) {
    vm.constantF32(spare, coefficients[power]);
    vm.fma(spare, result, x);
    [result, spare] = [spare, result];
  }
  return [result, spare];
}

/** Lane i = 1 << i, in a new register: 2^i is built as a float, whose exponent field is 127 + i. */
export function emitLaneBits(vm: VectorMachine): Vector {
  const bits = vm.vector();
  const bias = vm.vector();
  vm.laneIndex(bits);
  vm.constantI32(bias, 127);
  vm.addI32(bits, bits, bias);
  vm.shiftLeftI32(bits, bits, 23);
  vm.f32ToI32(bits, bits);
  vm.free(bias);
  return bits;
}

/**
 * The natural logarithm on the vector machine, for the log-sum-exp of cross-entropy and attention.
 * @module
 */
import type { Vector, VectorMachine } from "../../assemblers/vector_machine.ts";

/**
 * log(1 + r) = r − r²/2 + r³ · p(r) for √½ − 1 ≤ r < √2 − 1, in ascending powers.
 * Source: the Cephes mathematical library (S. L. Moshier), `logf`.
 */
const logTail = [
  3.3333331174e-1,
  -2.4999993993e-1,
  2.0000714765e-1,
  -1.6668057665e-1,
  1.4249322787e-1,
  -1.2420140846e-1,
  1.1676998740e-1,
  -1.1514610310e-1,
  7.0376836292e-2,
];

/** ln 2 in two parts, also from Cephes: the first has nine bits, so its product with an exponent is exact. */
const ln2High = 0.693359375;
const ln2Low = -2.12194440e-4;

/** Bits of √½: subtracting them leaves the exponent of x / √½, whose mantissa lies in [√½, √2). */
const rootHalfBits = 0x3f3504f3;

/**
 * d = log(x) for x ≥ √½; +∞ and NaN stay what they are. Four temporaries.
 *
 * Absolute error ≤ 1.2e-7 · max(|log(x)|, 1). The arguments here are sums of exponentials of which one is exp(0).
 */
export function emitLog(vm: VectorMachine, d: Vector, x: Vector): void {
  const exponent = vm.vector();
  const r = vm.vector();
  const a = vm.vector();
  const b = vm.vector();

  // x = 2^exponent · (1 + r)
  vm.constantI32(a, rootHalfBits);
  vm.subtractI32(exponent, x, a);
  vm.shiftRightI32(exponent, exponent, 23);
  vm.shiftLeftI32(a, exponent, 23);
  vm.subtractI32(r, x, a);
  vm.constantF32(a, 1);
  vm.subtract(r, r, a);
  vm.i32ToF32(exponent, exponent);

  let [tail, spare] = [a, b];
  vm.constantF32(tail, logTail[logTail.length - 1]);
  for (let power = logTail.length - 2; power >= 0; power--) {
    vm.constantF32(spare, logTail[power]);
    vm.fma(spare, tail, r);
    [tail, spare] = [spare, tail];
  }
  // The small terms first: r³ p(r) + exponent · ln2Low − r²/2, then r, then exponent · ln2High.
  vm.multiply(tail, tail, r);
  vm.constantF32(spare, 0.5);
  vm.subtract(tail, tail, spare);
  vm.multiply(spare, r, r);
  vm.multiply(tail, tail, spare);
  vm.constantF32(spare, ln2Low);
  vm.fma(tail, exponent, spare);
  vm.add(r, r, tail);
  vm.constantF32(spare, ln2High);
  vm.fma(r, exponent, spare);

  // x itself where it is +∞ or NaN, which compares as not less.
  vm.constantF32(a, Infinity);
  vm.selectLess(d, x, a, r, x);
  vm.free(exponent, r, a, b);
}

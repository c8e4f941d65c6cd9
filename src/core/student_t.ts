/**
 * Student's t distribution with a whole number of degrees of freedom, where it is a finite sum.
 * @module
 */

/**
 * P(|T| < t), Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4. `t` ≥ 0, `degrees` ≥ 1. Throws
 * RangeError for anything else.
 */
export function centralProbability(t: number, degrees: number): number {
  if (!(t >= 0 && Number.isSafeInteger(degrees) && degrees >= 1)) {
    throw new RangeError(`There is no t distribution at ${t} with ${degrees} degrees of freedom`);
  }
  const angle = Math.atan(t / Math.sqrt(degrees));
  const [sine, cosine] = [Math.sin(angle), Math.cos(angle)];
  const isOdd = degrees % 2 === 1;
  // 1 + ½cos² + (1·3)/(2·4)cos⁴ + …, or cos + ⅔cos³ + (2·4)/(3·5)cos⁵ + …: up to the power degrees − 2.
  let sum = 0;
  let term = isOdd ? cosine : 1;
  for (let power = isOdd ? 1 : 0; power <= degrees - 2; power += 2) {
    sum += term;
    term *= (power + 1) / (power + 2) * cosine ** 2;
  }
  return isOdd ? 2 / Math.PI * (angle + sine * sum) : sine * sum;
}

/** The t with P(|T| < t) = `confidence`, in (0, 1): 12.706 for 0.95 and one degree of freedom. */
export function centralQuantile(confidence: number, degrees: number): number {
  if (!(confidence > 0 && confidence < 1)) {
    throw new RangeError(`There is no quantile for a confidence of ${confidence}: wanted a number in (0, 1)`);
  }
  let [low, high] = [0, 1];
  while (centralProbability(high, degrees) < confidence) [low, high] = [high, 2 * high];
  // Halving until no number lies between.
  for (;;) {
    const middle = (low + high) / 2;
    if (middle === low || middle === high) return middle;
    if (centralProbability(middle, degrees) < confidence) low = middle;
    else high = middle;
  }
}

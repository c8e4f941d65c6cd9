/** The terms of the meta-loss and their weights, against central differences. */
import assert from "node:assert/strict";
import { combineLosses, type GradientPair, gradientTerm } from "./objective.ts";
import { metaTerms } from "./options.ts";

function close(found: number, wanted: number, what: string): void {
  assert.ok(Math.abs(found - wanted) <= 1e-8 * (1 + Math.abs(wanted)), `${what}: ${found}, wanted ${wanted}`);
}

const difference = (of: (shift: number) => number) => (of(1e-5) - of(-1e-5)) / 2e-5;

for (const boundedUncertainty of [false, true]) {
  Deno.test(`combineLosses has its own derivatives, ${boundedUncertainty ? "bounded" : "plain"}`, () => {
    const options = { objective: "combined", priorities: [1, 3, 5], boundedUncertainty } as const;
    const losses = { gradient: -0.7, loss_decrease: 0.3, gen_gap: 1.2 };
    const s = [0.4, -0.2, 1];
    const found = combineLosses(losses, s, options);
    metaTerms.forEach((term, i) => {
      const byLoss = (shift: number) =>
        combineLosses({ ...losses, [term]: losses[term] + shift }, s, options).value;
      close(found.weights[term]!, difference(byLoss), `weight of ${term}`);
      const byS = (shift: number) =>
        combineLosses(losses, s.map((value, j) => value + (i === j ? shift : 0)), options).value;
      close(found.gradUncertainties[i], difference(byS), `s of ${term}`);
    });
  });
}

Deno.test("combineLosses is Kendall's regression form with priorities, and one term alone is itself", () => {
  const losses = { gradient: 2, loss_decrease: -1, gen_gap: 3 };
  const combined = { objective: "combined", priorities: [2, 5, 1], boundedUncertainty: false } as const;
  const s = [Math.log(2), 0, Math.log(4)];
  const wanted = 0.5 * (2 / 2 - 1 + 3 / 4) + 0.5 * (2 * Math.log(2) + Math.log(4));
  close(combineLosses(losses, s, combined).value, wanted, "combined");
  assert.deepEqual(combineLosses(losses, s, { ...combined, objective: "gen_gap" }), {
    value: 3,
    weights: { gen_gap: 1 },
    gradUncertainties: [0, 0, 0],
  });
});

Deno.test("gradientTerm is λ₁ ‖g'‖² − λ₂ cos(g, g') over groups, with its derivative by g' and λ", () => {
  const before = [[1, 2], [0, 0], [3, -1]];
  const after = [[0.5, -1], [2, 1], [1, 1]];
  const [lambda1, lambda2] = [[0.3, 0.6, 0.9], [0.8, 0.5, 0.2]];
  const dot = (a: readonly number[], b: readonly number[]) =>
    a.reduce((sum, value, i) => sum + value * b[i], 0);
  const pairs = (): GradientPair[] =>
    before.map((g, i) => ({
      beforeSquares: dot(g, g),
      afterSquares: dot(after[i], after[i]),
      dot: dot(g, after[i]),
    }));
  const found = gradientTerm(pairs(), lambda1, lambda2);
  const cosines = [-1.5 / Math.sqrt(5 * 1.25), 0, 2 / Math.sqrt(10 * 2)];
  const wanted = (0.3 * 1.25 - 0.8 * cosines[0] + 0.6 * 5 + 0.9 * 2 - 0.2 * cosines[2]) / 3;
  close(found.value, wanted, "value");
  for (let g = 0; g < 3; g++) {
    close(found.gradLambda1[g], dot(after[g], after[g]) / 3, "λ₁");
    close(found.gradLambda2[g], -cosines[g] / 3, "λ₂");
    for (let i = 0; i < 2; i++) {
      const slope = difference((shift) => {
        after[g][i] += shift;
        const { value } = gradientTerm(pairs(), lambda1, lambda2);
        after[g][i] -= shift;
        return value;
      });
      close(
        found.ofAfter[g] * after[g][i] + found.ofBefore[g] * before[g][i],
        slope,
        `group ${g}, element ${i}`,
      );
    }
  }
});

/**
 * Sums of outer products by their definition.
 * @module
 */
import type { NumberArray } from "../../graph/operation.ts";
import type { FisherShape } from "./kernel.ts";

/**
 * fisher[b][i][j] += Σ_{k < count} gradients[b][k][i] · gradients[b][k][j] for j ≤ i: with `begins` = in place of +=. What `fisherKernel` does on and below
 * the diagonal. What lies above is left as it is.
 */
export function fisherReference(
  fisher: NumberArray,
  gradients: NumberArray,
  { size, capacity, begins }: FisherShape,
  count: number,
): void {
  for (let block = 0; block < fisher.length / (size * size); block++) {
    for (let i = 0; begins && i < size; i++) {
      fisher.fill(0, (block * size + i) * size, (block * size + i) * size + i + 1);
    }
    for (let k = 0; k < count; k++) {
      const at = (block * capacity + k) * size;
      for (let i = 0; i < size; i++) {
        for (let j = 0; j <= i; j++) {
          fisher[(block * size + i) * size + j] += gradients[at + i] * gradients[at + j];
        }
      }
    }
  }
}

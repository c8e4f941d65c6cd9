import assert from "node:assert/strict";
import { InputError } from "../../core/errors.ts";
import { randomKey, RandomStream } from "../../core/random.ts";
import { factorFisher } from "./factor.ts";
import { type FisherPlaces, fisherPlaces, gatherPlaces, scatterPlaces } from "./places.ts";
import {
  fisherMatrix,
  inverseByUpdates,
  inverseOfFactor,
  invert,
  quadraticCost,
  surgeon,
  times,
} from "./reference.ts";
import { fisherBlock, removeUnits, SaliencyScratch, scoreUnits } from "./saliency.ts";

const single = { rows: 1, columns: 1 };

/** Gradients that depend on each other, as those of neighbouring weights do. */
function gradientsOf(count: number, size: number, seed: number): Float64Array[] {
  const random = new RandomStream(randomKey(seed, "gradients"));
  const mixing = Float64Array.from({ length: size * size }, () => random.normal() / Math.sqrt(size));
  return Array.from(
    { length: count },
    () => times(mixing, Array.from({ length: size }, () => random.normal())),
  );
}

function sumsOf(gradients: readonly Float64Array[]): Float64Array {
  return fisherMatrix(gradients, 0).map((value) => value * gradients.length);
}

function assertClose(found: ArrayLike<number>, wanted: ArrayLike<number>, relative: number): void {
  const scale = Math.max(...Array.from(wanted, Math.abs));
  Array.from(wanted, (value, index) =>
    assert.ok(
      Math.abs(found[index] - value) <= relative * scale,
      `element ${index} is ${found[index]}, wanted ${value}`,
    ));
}

/** A factor in f64, so that what is compared is the method and not its storage. */
function factorOf(
  gradients: readonly Float64Array[],
  damp: number,
  pruned: ArrayLike<number> = [],
): Float64Array {
  const size = gradients[0].length;
  const factor = sumsOf(gradients);
  const isPruned = Uint8Array.from({ length: size }, (_, at) => pruned[at] ?? 0);
  const scale = { scale: 1 / gradients.length, damp };
  assert.ok(factorFisher(factor, 0, size, scale, isPruned, new Float64Array(size * size)));
  return factor;
}

Deno.test("the factor stands for the inverse, as elimination and the paper's rank-one updates have it", () => {
  for (const [count, size, damp] of [[40, 16, 1e-3], [5, 16, 1e-2], [100, 48, 1e-3], [1, 3, 1]]) {
    const gradients = gradientsOf(count, size, count);
    const direct = invert(fisherMatrix(gradients, damp));
    assertClose(inverseOfFactor(factorOf(gradients, damp), 0, size), direct, 1e-9);
    assertClose(inverseByUpdates(gradients, damp), direct, 1e-9);
  }
});

Deno.test("a factor by hand: F = [[4, 2], [2, 5]] has L = [[2, 0], [1, 2]] and R = [[½, 0], [−¼, ½]]", () => {
  const sums = Float64Array.of(-7, 6, NaN, 4, 8);
  assert.ok(factorFisher(sums, 1, 2, { scale: 0.5, damp: 1 }, [0, 0], new Float64Array(4)));
  // What was above the diagonal stays.
  assert.deepEqual([...sums], [-7, 0.5, NaN, -0.25, 0.5]);
});

Deno.test("pruned places leave the Fisher matrix as gradients of zero would", () => {
  const gradients = gradientsOf(30, 16, 9);
  const pruned = [0, 1, 0, 0, 1];
  const masked = gradients.map((gradient) => gradient.map((value, at) => pruned[at] ? 0 : value));
  assertClose(
    inverseOfFactor(factorOf(gradients, 1e-3, pruned), 0, 16),
    invert(fisherMatrix(masked, 1e-3)),
    1e-12,
  );
});

Deno.test("a block whose gradients are not finite is refused", () => {
  for (const value of [NaN, Infinity]) {
    const sums = Float32Array.of(1, 0, value, 1);
    assert.equal(factorFisher(sums, 0, 2, { scale: 1, damp: 1 }, [0, 0], new Float64Array(4)), false);
  }
});

Deno.test("a single weight by hand: F⁻¹ = [[5, −2], [−2, 4]] / 16", () => {
  const factor = Float64Array.of(0.5, 0, -0.25, 0.5);
  const places = { ...fisherPlaces({ rows: 1, columns: 2 }, single, 2), size: 2 };
  const weights = Float64Array.of(1, 3);
  const block = fisherBlock(places, 0, { factor, weights });
  const scratch = new SaliencyScratch(places);
  const scores = new Float64Array(2);
  scoreUnits(block, places, scores, 0, scratch);
  // w² / (2 F⁻¹_qq)
  assert.deepEqual([...scores], [1 / (2 * 5 / 16), 9 / (2 * 4 / 16)]);
  removeUnits(block, places, (unit) => unit === 0, false, scratch);
  // w₁ − F⁻¹₁₀ · w₀ / F⁻¹₀₀ = 3 + 2 / 5
  assertClose(weights, [0, 3.4], 1e-15);
});

for (const [rows, columns] of [[1, 1], [1, 4], [4, 1], [2, 3]]) {
  Deno.test(`scores and changes of ${rows} × ${columns} units agree with the reference`, () => {
    const places = fisherPlaces({ rows: 4, columns: 6 }, { rows, columns }, 16);
    const { size, unitSize, unitsPerBlock } = places;
    const random = new RandomStream(randomKey(3, "weights"));
    for (let index = 0; index < places.blocks; index++) {
      const gradients = gradientsOf(50, size, index);
      const fisher = fisherMatrix(gradients, 1e-3);
      const inverse = invert(fisher);
      const before = Float64Array.from({ length: size }, () => random.normal());
      const factor = new Float64Array(places.blocks * size * size);
      factor.set(factorOf(gradients, 1e-3), index * size * size);
      const weights = new Float64Array(places.blocks * size);
      weights.set(before, index * size);
      const block = fisherBlock(places, index, { factor, weights });
      const scratch = new SaliencyScratch(places);
      const scores = new Float64Array(places.units);
      scoreUnits(block, places, scores, index * unitsPerBlock, scratch);

      const unitOf = (unit: number) => Array.from({ length: unitSize }, (_, i) => unit * unitSize + i);
      const changed = before.slice();
      for (let unit = 0; unit < block.units; unit++) {
        const { cost, change } = surgeon(inverse, before, unitOf(unit));
        assertClose([scores[index * unitsPerBlock + unit]], [cost], 1e-9);
        // The cost is that of the change in the quadratic model.
        assertClose([quadraticCost(fisher, change)], [cost], 1e-9);
        if (unit % 2 === 0) change.forEach((value, at) => changed[at] += value);
      }
      for (let unit = 0; unit < block.units; unit += 2) {
        changed.fill(0, unit * unitSize, (unit + 1) * unitSize);
      }
      removeUnits(block, places, (unit) => unit % 2 === 0, false, scratch);
      assertClose(weights.subarray(index * size, (index + 1) * size), changed, 1e-9);
      assert.ok(
        weights.every((value, at) => value === 0 || Math.floor(at / size) === index),
        "another block changed",
      );
    }
  });
}

/** A few directions that many weights share, and noise. */
function sharedGradients(count: number, size: number, seed: number): Float64Array[] {
  const random = new RandomStream(randomKey(seed, "shared"));
  const directions = Array.from(
    { length: 8 },
    () => Float64Array.from({ length: size }, () => random.normal()),
  );
  return Array.from({ length: count }, () => {
    const gradient = Float64Array.from({ length: size }, () => random.normal());
    for (const direction of directions) {
      const factor = random.normal();
      direction.forEach((value, at) => gradient[at] += factor * value);
    }
    return gradient;
  });
}

Deno.test("weights that make up for the pruned ones cost less than weights that do not, jointly least", () => {
  const size = 48;
  const places = fisherPlaces({ rows: 1, columns: size }, single, size);
  for (const count of [1, 4, 12, 24]) {
    for (let seed = 0; seed < 8; seed++) {
      const gradients = sharedGradients(200, size, seed);
      const fisher = fisherMatrix(gradients, 1e-4);
      const factor = factorOf(gradients, 1e-4);
      const random = new RandomStream(randomKey(seed, "weights"));
      const before = Float64Array.from({ length: size }, () => random.normal());
      const scratch = new SaliencyScratch(places);
      const scores = new Float64Array(size);
      scoreUnits(fisherBlock(places, 0, { factor, weights: before }), places, scores, 0, scratch);
      const removed = [...scores.keys()].sort((a, b) => scores[a] - scores[b]).slice(0, count);
      const costs = [false, true].map((jointly) => {
        const weights = before.slice();
        const block = fisherBlock(places, 0, { factor, weights });
        removeUnits(block, places, (unit) => removed.includes(unit), jointly, scratch);
        return quadraticCost(fisher, weights.map((value, at) => value - before[at]));
      });
      const alone = Float64Array.from(before, (value, at) => removed.includes(at) ? -value : 0);
      const [summed, joint] = costs;
      const where = `${count} weights, seed ${seed}: ${joint} jointly, ${summed} summed`;
      assert.ok(summed < quadraticCost(fisher, alone), `${where}, ${quadraticCost(fisher, alone)} alone`);
      assert.ok(count === 1 ? Math.abs(joint - summed) <= 1e-9 * summed : joint < summed, where);
      assertClose([joint], [surgeon(invert(fisher), before, removed).cost], 1e-7);
    }
  }
});

Deno.test("what was pruned before stays zero and takes no part", () => {
  const size = 16;
  const pruned = Array.from({ length: size }, (_, at) => Number(at % 3 === 0));
  const gradients = gradientsOf(40, size, 1);
  const places = fisherPlaces({ rows: 1, columns: size }, single, size);
  const weights = Float64Array.from(pruned, (cut, at) => cut ? 0 : 1 + at);
  const block = fisherBlock(places, 0, { factor: factorOf(gradients, 1e-3, pruned), weights });
  removeUnits(block, places, (unit) => unit === 4, false, new SaliencyScratch(places));
  pruned.forEach((cut, at) => assert.equal(weights[at] === 0, cut === 1 || at === 4, `weight ${at}`));
});

/** The places by their definition: the units one by one, each weight by weight. */
function naivePlaces({ rows, columns, unit, unitsPerBlock, size }: FisherPlaces): Map<number, number> {
  const found = new Map<number, number>();
  let index = 0;
  for (let row = 0; row < rows; row += unit.rows) {
    for (let column = 0; column < columns; column += unit.columns, index++) {
      const first = Math.floor(index / unitsPerBlock) * size +
        (index % unitsPerBlock) * unit.rows * unit.columns;
      for (let r = 0; r < unit.rows; r++) {
        for (let c = 0; c < unit.columns; c++) {
          if (row + r >= rows || column + c >= columns) continue;
          found.set((row + r) * columns + column + c, first + r * unit.columns + c);
        }
      }
    }
  }
  return found;
}

Deno.test("units lie together in the Fisher blocks, whatever the matrix and the pattern", () => {
  for (const [unitRows, unitColumns] of [[1, 1], [4, 1], [1, 4], [2, 2], [3, 3], [16, 1]]) {
    for (const [rows, columns, blockSize] of [[1, 1, 16], [4, 4, 16], [5, 7, 16], [8, 33, 16], [17, 3, 20]]) {
      const places = fisherPlaces({ rows, columns }, { rows: unitRows, columns: unitColumns }, blockSize);
      const { size } = places;
      assert.equal(size, blockSize === 20 ? 32 : 16);
      const values = Float32Array.from({ length: rows * columns }, (_, at) => at + 1);
      const wanted = new Float32Array(places.blocks * size);
      for (const [weight, place] of naivePlaces(places)) wanted[place] = weight + 1;
      const found = new Float32Array(places.blocks * size);
      gatherPlaces(values, places, found);
      assert.deepEqual(found, wanted);
      const back = new Float32Array(rows * columns);
      scatterPlaces(found, places, back);
      assert.deepEqual(back, values);

      const spread = new Float32Array(3 + places.blocks * 40);
      gatherPlaces(values, places, spread, 3, 40);
      for (let block = 0; block < places.blocks; block++) {
        assert.deepEqual(
          spread.subarray(3 + block * 40, 3 + block * 40 + size),
          wanted.subarray(block * size, (block + 1) * size),
        );
      }
    }
  }
});

Deno.test("a unit larger than a Fisher block is refused", () => {
  assert.throws(
    () => fisherPlaces({ rows: 8, columns: 8 }, { rows: 8, columns: 8 }, 48),
    new InputError(
      "Cannot prune 8 × 8 weights together by their Fisher matrix: its blocks have 48 weights, wanted 64 or more",
    ),
  );
});

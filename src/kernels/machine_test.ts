/**
 * Every instruction of the vector machine, on every machine of this host, through kernels of one instruction.
 *
 * Nothing here knows the number of lanes: a new machine is checked by appearing in `availableMachines()`.
 * @module
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { Integer, Relation, Vector, VectorMachine } from "../assemblers/vector_machine.ts";
import { availableMachines, createArenaMemory, linkImage, type Machine } from "../machines/mod.ts";
import {
  type ArgumentReader,
  type ArgumentSpec,
  type ArgumentValues,
  callKernel,
  defineKernel,
  type Kernel,
} from "./kernel.ts";

const memory = createArenaMemory(65536);
const bytes = new Uint8Array(memory.buffer);
const words = new Int32Array(memory.buffer);
const floats = new Float32Array(memory.buffer);

/** Where the argument words, the operands and the result lie. Results are placed apart from the operands. */
const argumentsAddress = 64;
const operandAddress = 1024;
const resultAddress = 8192;

/** Registers a test for every machine. */
function testOnMachines(name: string, check: (machine: Machine) => void): void {
  for (const machine of availableMachines()) Deno.test(`${machine.isa}: ${name}`, () => check(machine));
}

/** Assembles a kernel and gives the function that runs it on argument values. */
function prepare<S extends ArgumentSpec>(
  machine: Machine,
  spec: S,
  emit: (machine: VectorMachine, args: ArgumentReader<S>) => void,
): (values: ArgumentValues<S>) => void {
  const kernel = defineKernel<S>({ key: "tested", arguments: spec, emit });
  const [run] = linkImage(machine.assemble([kernel as unknown as Kernel]), memory);
  return (values) => {
    words.set(callKernel(kernel, values).words, argumentsAddress / 4);
    run(argumentsAddress);
  };
}

/** A kernel that loads `count` vectors, computes one, and stores it. Gives the function from operand bits to result bits. */
function prepareVector(
  machine: Machine,
  count: number,
  emit: (machine: VectorMachine, operands: Vector[]) => Vector,
): (...operands: ArrayLike<number>[]) => Int32Array {
  const { lanes } = machine;
  const run = prepare(machine, { source: "pointer", target: "pointer" }, (m, args) => {
    const source = args.pointer("source");
    const operands = Array.from({ length: count }, (_, index) => {
      const operand = m.vector();
      m.load(operand, source, index * 4 * lanes);
      return operand;
    });
    const result = emit(m, operands);
    const target = args.pointer("target");
    m.store(target, 0, result);
    m.free(...new Set([...operands, result]), source, target);
  });
  return (...operands) => {
    operands.forEach((operand, index) => words.set(operand, operandAddress / 4 + index * lanes));
    run({ source: operandAddress, target: resultAddress });
    return words.slice(resultAddress / 4, resultAddress / 4 + lanes);
  };
}

const bitsOf = (values: ArrayLike<number>) => new Int32Array(Float32Array.from(values).buffer);
const floatsOf = (bits: Int32Array) => Array.from(new Float32Array(bits.buffer, 0, bits.length));

const corners = [0, -0, 1, -1, 0.1, 1e-42, -3.4e38, 3.4e38, Infinity, -Infinity, NaN, 16777217, 1.5, -2.5];

/** Arbitrary vectors of `lanes` elements. */
const f32Lanes = (lanes: number) =>
  fc.array(fc.oneof(fc.float(), fc.constantFrom(...corners.map(Math.fround))), {
    minLength: lanes,
    maxLength: lanes,
  });
const finiteLanes = (lanes: number) =>
  fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: lanes, maxLength: lanes });
const i32Lanes = (lanes: number) =>
  fc.array(fc.oneof(fc.integer(), fc.constantFrom(-(2 ** 31), 2 ** 31 - 1, 0, -1)), {
    minLength: lanes,
    maxLength: lanes,
  });

const f32Binary = {
  add: (a: number, b: number) => a + b,
  subtract: (a: number, b: number) => a - b,
  multiply: (a: number, b: number) => a * b,
  divide: (a: number, b: number) => a / b,
};
const i32Binary = {
  addI32: (a: number, b: number) => (a + b) | 0,
  subtractI32: (a: number, b: number) => (a - b) | 0,
  multiplyI32: Math.imul,
  and: (a: number, b: number) => a & b,
  or: (a: number, b: number) => a | b,
  xor: (a: number, b: number) => a ^ b,
};

/** A binary instruction three times: into a new register, over the first operand, over the second. */
function prepareBinary(machine: Machine, name: keyof typeof f32Binary | keyof typeof i32Binary) {
  return [0, 1, 2].map((place) =>
    prepareVector(machine, 2, (m, [a, b]) => {
      const d = [a, b][place] ?? m.vector();
      m[name](d, a, b);
      return d;
    })
  );
}

for (const name of Object.keys(f32Binary) as (keyof typeof f32Binary)[]) {
  testOnMachines(`${name} rounds once, NaN and infinities included, into any register`, (machine) => {
    const runs = prepareBinary(machine, name);
    fc.assert(fc.property(f32Lanes(machine.lanes), f32Lanes(machine.lanes), (a, b) => {
      const wanted = a.map((x, i) => Math.fround(f32Binary[name](x, b[i])));
      for (const run of runs) assert.deepEqual(floatsOf(run(bitsOf(a), bitsOf(b))), wanted);
    }));
  });
}

for (const name of Object.keys(i32Binary) as (keyof typeof i32Binary)[]) {
  testOnMachines(`${name} wraps, into any register`, (machine) => {
    const runs = prepareBinary(machine, name);
    fc.assert(fc.property(i32Lanes(machine.lanes), i32Lanes(machine.lanes), (a, b) => {
      const wanted = a.map((x, i) => i32Binary[name](x, b[i]));
      for (const run of runs) assert.deepEqual(Array.from(run(a, b)), wanted);
    }));
  });
}

testOnMachines("one register may be both operands and the destination", (machine) => {
  const run = prepareVector(machine, 1, (m, [a]) => {
    m.add(a, a, a);
    m.addI32(a, a, a);
    return a;
  });
  const doubled = bitsOf(Array(machine.lanes).fill(6)).map((bits) => 2 * bits);
  assert.deepEqual(run(bitsOf(Array(machine.lanes).fill(3))), doubled);
});

testOnMachines("squareRoot rounds once", (machine) => {
  const run = prepareVector(machine, 1, (m, [a]) => {
    m.squareRoot(a, a);
    return a;
  });
  fc.assert(fc.property(f32Lanes(machine.lanes), (a) => {
    assert.deepEqual(floatsOf(run(bitsOf(a))), a.map((x) => Math.fround(Math.sqrt(x))));
  }));
});

testOnMachines("minimum, maximum and maximumLanes order finite numbers and infinities", (machine) => {
  const { lanes } = machine;
  const minimum = prepareVector(machine, 2, (m, [a, b]) => (m.minimum(a, a, b), a));
  const maximum = prepareVector(machine, 2, (m, [a, b]) => (m.maximum(b, a, b), b));
  const lanesMaximum = prepareVector(machine, 1, (m, [a]) => {
    const d = m.vector();
    m.maximumLanes(d, a);
    return d;
  });
  const withInfinities = fc.array(fc.float({ noNaN: true }), { minLength: lanes, maxLength: lanes });
  // Which zero wins is the processor's business: + 0 makes both the same.
  fc.assert(fc.property(withInfinities, withInfinities, (a, b) => {
    const plain = (bits: Int32Array) => floatsOf(bits).map((value) => value + 0);
    assert.deepEqual(plain(minimum(bitsOf(a), bitsOf(b))), a.map((x, i) => Math.min(x, b[i]) + 0));
    assert.deepEqual(plain(maximum(bitsOf(a), bitsOf(b))), a.map((x, i) => Math.max(x, b[i]) + 0));
    assert.deepEqual(plain(lanesMaximum(bitsOf(a))), Array(lanes).fill(Math.max(...a) + 0));
  }));
});

testOnMachines("fma and fmaNegated are exact where nothing needs rounding", (machine) => {
  const small = fc.array(fc.integer({ min: -2000, max: 2000 }), {
    minLength: machine.lanes,
    maxLength: machine.lanes,
  });
  const fma = prepareVector(machine, 3, (m, [c, a, b]) => (m.fma(c, a, b), c));
  const fmaNegated = prepareVector(machine, 3, (m, [c, a, b]) => (m.fmaNegated(c, a, b), c));
  fc.assert(fc.property(small, small, small, (a, b, c) => {
    assert.deepEqual(floatsOf(fma(bitsOf(c), bitsOf(a), bitsOf(b))), c.map((x, i) => x + a[i] * b[i] + 0));
    assert.deepEqual(
      floatsOf(fmaNegated(bitsOf(c), bitsOf(a), bitsOf(b))),
      c.map((x, i) => x - a[i] * b[i] + 0),
    );
  }));
});

testOnMachines("fmaLoad and fmaBroadcast give the bits of fma with what is in memory", (machine) => {
  const { lanes } = machine;
  const viaRegister = prepareVector(machine, 3, (m, [c, a, b]) => (m.fma(c, a, b), c));
  // The third operand lies after the first two.
  const prepareMemory = (name: "fmaLoad" | "fmaBroadcast", offset: number, isSquare: boolean) =>
    prepare(machine, { source: "pointer", target: "pointer" }, (m, args) => {
      const source = args.pointer("source");
      const [c, a] = [m.vector(), m.vector()];
      m.load(c, source, 0);
      m.load(a, source, 4 * lanes);
      m[name](c, isSquare ? c : a, source, 8 * lanes + offset);
      const target = args.pointer("target");
      m.store(target, 0, c);
      m.free(c, a, source, target);
    });
  const runs = [0, 4, 4096].flatMap((offset) =>
    [false, true].flatMap((isSquare) => [
      { offset, isSquare, spread: 1, run: prepareMemory("fmaLoad", offset, isSquare) },
      { offset, isSquare, spread: 0, run: prepareMemory("fmaBroadcast", offset, isSquare) },
    ])
  );
  fc.assert(fc.property(f32Lanes(lanes), f32Lanes(lanes), f32Lanes(lanes), (c, a, b) => {
    for (const { offset, isSquare, spread, run } of runs) {
      floats.set([...c, ...a], operandAddress / 4);
      floats.set(b, operandAddress / 4 + 2 * lanes + offset / 4);
      run({ source: operandAddress, target: resultAddress });
      const found = words.slice(resultAddress / 4, resultAddress / 4 + lanes);
      const other = b.map((_, i) => b[i * spread]);
      const wanted = viaRegister(bitsOf(c), bitsOf(isSquare ? c : a), bitsOf(other));
      assert.deepEqual(floatsOf(found), floatsOf(wanted));
    }
  }));
});

testOnMachines(
  "fma rounds once or twice, the same in fmaNegated, and carries NaN and infinity",
  (machine) => {
    const { lanes } = machine;
    const fma = prepareVector(machine, 3, (m, [c, a, b]) => (m.fma(c, a, b), c));
    const fmaNegated = prepareVector(machine, 3, (m, [c, a, b]) => (m.fmaNegated(c, a, b), c));
    const fill = (value: number) => bitsOf(Array(lanes).fill(value));
    // (1 + 2⁻¹²)² − (1 + 2⁻¹¹) is 2⁻²⁴, which a rounded product loses.
    const a = fill(1 + 2 ** -12);
    const found = floatsOf(fma(fill(-(1 + 2 ** -11)), a, a));
    const negated = floatsOf(fmaNegated(fill(1 + 2 ** -11), a, a));
    assert.ok(found[0] === 0 || found[0] === 2 ** -24, `found ${found[0]}`);
    assert.deepEqual(found, Array(lanes).fill(found[0]));
    assert.deepEqual(negated.map((value) => 0 - value), found);
    if (machine.isa === "wasm-simd") assert.equal(found[0], 0);
    assert.deepEqual(floatsOf(fma(fill(1), fill(NaN), fill(0))), Array(lanes).fill(NaN));
    assert.deepEqual(floatsOf(fma(fill(1), fill(Infinity), fill(-1))), Array(lanes).fill(-Infinity));
    assert.deepEqual(floatsOf(fmaNegated(fill(Infinity), fill(Infinity), fill(1))), Array(lanes).fill(NaN));
  },
);

testOnMachines("selectLess takes y where a or b is NaN, and may overwrite any operand", (machine) => {
  const { lanes } = machine;
  const runs = [0, 1, 2, 3].map((place) =>
    prepareVector(machine, 4, (m, operands) => {
      const [a, b, x, y] = operands;
      m.selectLess(operands[place], a, b, x, y);
      return operands[place];
    })
  );
  fc.assert(
    fc.property(f32Lanes(lanes), f32Lanes(lanes), i32Lanes(lanes), i32Lanes(lanes), (a, b, x, y) => {
      const wanted = a.map((value, i) => value < b[i] ? x[i] : y[i]);
      for (const run of runs) assert.deepEqual(Array.from(run(bitsOf(a), bitsOf(b), x, y)), wanted);
    }),
  );
});

testOnMachines("sumLanes adds halves, then quarters, down to one lane", (machine) => {
  const apart = prepareVector(machine, 1, (m, [a]) => {
    const d = m.vector();
    m.sumLanes(d, a);
    return d;
  });
  const over = prepareVector(machine, 1, (m, [a]) => (m.sumLanes(a, a), a));
  fc.assert(fc.property(finiteLanes(machine.lanes), (a) => {
    let tree = a;
    while (tree.length > 1) {
      const half = tree.length / 2;
      tree = tree.slice(0, half).map((value, i) => Math.fround(value + tree[half + i]));
    }
    const wanted = Array(machine.lanes).fill(tree[0]);
    assert.deepEqual(floatsOf(apart(bitsOf(a))), wanted);
    assert.deepEqual(floatsOf(over(bitsOf(a))), wanted);
  }));
});

testOnMachines("constants, laneIndex, move, broadcast and broadcastInteger fill every lane", (machine) => {
  const { lanes } = machine;
  const constant = (emit: (m: VectorMachine, d: Vector) => void) =>
    Array.from(
      prepareVector(machine, 0, (m) => {
        const d = m.vector();
        emit(m, d);
        return d;
      })(),
    );
  for (const value of corners) {
    const [bits] = bitsOf([value]);
    assert.deepEqual(constant((m, d) => m.constantF32(d, value)), Array(lanes).fill(bits));
  }
  for (const value of [0, 1, -1, 0x12345678, -(2 ** 31)]) {
    assert.deepEqual(constant((m, d) => m.constantI32(d, value)), Array(lanes).fill(value));
    const fromInteger = constant((m, d) => {
      const register = m.integer();
      m.setInteger(register, value);
      m.broadcastInteger(d, register);
      m.free(register);
    });
    assert.deepEqual(fromInteger, Array(lanes).fill(value));
  }
  assert.deepEqual(constant((m, d) => m.laneIndex(d)), Array.from({ length: lanes }, (_, i) => i));
  const moved = prepareVector(machine, 1, (m, [a]) => {
    const d = m.vector();
    m.move(d, a);
    m.xor(a, a, a);
    return d;
  });
  const pattern = Int32Array.from({ length: lanes }, (_, i) => 0x7fc0_0001 + i);
  assert.deepEqual(moved(pattern), pattern);
  const broadcast = prepare(machine, { source: "pointer", target: "pointer" }, (m, args) => {
    const source = args.pointer("source");
    const target = args.pointer("target");
    const a = m.vector();
    m.broadcast(a, source, 8);
    m.store(target, 0, a);
    m.free(source, target, a);
  });
  words[operandAddress / 4 + 2] = -77;
  broadcast({ source: operandAddress, target: resultAddress });
  assert.deepEqual(
    Array.from(words.subarray(resultAddress / 4, resultAddress / 4 + lanes)),
    Array(lanes).fill(-77),
  );
});

testOnMachines("shifts of lanes by 0, 1, 16 and 31 bits, right shifts unsigned", (machine) => {
  for (const bits of [0, 1, 16, 31]) {
    const left = prepareVector(machine, 1, (m, [a]) => (m.shiftLeftI32(a, a, bits), a));
    const right = prepareVector(machine, 1, (m, [a]) => (m.shiftRightI32(a, a, bits), a));
    fc.assert(
      fc.property(i32Lanes(machine.lanes), (a) => {
        assert.deepEqual(Array.from(left(a)), a.map((x) => x << bits));
        assert.deepEqual(Array.from(right(a)), a.map((x) => (x >>> bits) | 0));
      }),
      { numRuns: 30 },
    );
  }
});

testOnMachines("i32ToF32 rounds to nearest, f32ToI32 to nearest with ties to even", (machine) => {
  const { lanes } = machine;
  const toFloat = prepareVector(machine, 1, (m, [a]) => (m.i32ToF32(a, a), a));
  const toInteger = prepareVector(machine, 1, (m, [a]) => (m.f32ToI32(a, a), a));
  fc.assert(fc.property(i32Lanes(lanes), (a) => {
    assert.deepEqual(floatsOf(toFloat(a)), a.map(Math.fround));
  }));
  const ties = [
    [0.5, 0],
    [1.5, 2],
    [2.5, 2],
    [-0.5, 0],
    [-1.5, -2],
    [-2.5, -2],
    [0.49999997, 0],
    [-0.50000006, -1],
    [8388607.5, 8388608],
    [2147483520, 2147483520],
    [-2147483520, -2147483520],
    [0, 0],
  ];
  for (const [value, wanted] of ties) {
    assert.deepEqual(Array.from(toInteger(bitsOf(Array(lanes).fill(value)))), Array(lanes).fill(wanted));
  }
});

testOnMachines("dotU8S8 is exact, extreme bytes included, and wraps only in 32 bits", (machine) => {
  const { lanes } = machine;
  const dot = prepareVector(machine, 3, (m, [c, a, b]) => (m.dotU8S8(c, a, b), c));
  const packed = (list: number[]) => new Int32Array(Uint8Array.from(list).buffer);
  const byteLanes = fc.array(
    fc.oneof(fc.constantFrom(0, 1, 127, 128, 255), fc.integer({ min: 0, max: 255 })),
    {
      minLength: 4 * lanes,
      maxLength: 4 * lanes,
    },
  );
  const check = (c: number[], a: number[], b: number[]) =>
    assert.deepEqual(
      Array.from(dot(c, packed(a), packed(b))),
      c.map((sum, lane) => {
        for (let i = 4 * lane; i < 4 * lane + 4; i++) sum += a[i] * (b[i] << 24 >> 24);
        return sum | 0;
      }),
    );
  fc.assert(fc.property(i32Lanes(lanes), byteLanes, byteLanes, check));
  for (const weight of [127, 128, 255]) {
    check(Array(lanes).fill(0), Array(4 * lanes).fill(255), Array(4 * lanes).fill(weight));
  }
});

testOnMachines("load and store need no alignment beyond the element's and take offsets", (machine) => {
  const { lanes } = machine;
  for (const offset of [0, 4, 12, 20000]) {
    const run = prepare(machine, { source: "pointer", target: "pointer" }, (m, args) => {
      const source = args.pointer("source");
      const target = args.pointer("target");
      const a = m.vector();
      m.load(a, source, offset);
      m.store(target, offset, a);
      m.free(source, target, a);
    });
    bytes.fill(0xee);
    const pattern = Int32Array.from({ length: lanes }, (_, i) => 1000 + i);
    words.set(pattern, (operandAddress + 4 + offset) / 4);
    run({ source: operandAddress + 4, target: resultAddress + 4 });
    const at = (resultAddress + 4 + offset) / 4;
    assert.deepEqual(words.slice(at, at + lanes), pattern);
    assert.equal(words[at - 1] >>> 0, 0xeeeeeeee);
    assert.equal(words[at + lanes] >>> 0, 0xeeeeeeee);
  }
});

testOnMachines("loadFirst and storeFirst touch the first count elements, for every count", (machine) => {
  const { lanes } = machine;
  const load = prepare(machine, { source: "pointer", target: "pointer", count: "integer" }, (m, args) => {
    const source = args.pointer("source");
    const target = args.pointer("target");
    const count = args.integer("count");
    const a = m.vector();
    m.constantI32(a, -1);
    m.loadFirst(a, source, 4, count);
    m.store(target, 0, a);
    m.free(source, target, count, a);
  });
  const store = prepare(machine, { source: "pointer", target: "pointer", count: "integer" }, (m, args) => {
    const source = args.pointer("source");
    const target = args.pointer("target");
    const count = args.integer("count");
    const a = m.vector();
    m.load(a, source, 0);
    m.storeFirst(target, 4, a, count);
    m.free(source, target, count, a);
  });
  for (let count = 0; count <= lanes; count++) {
    const pattern = Int32Array.from({ length: lanes }, (_, i) => i < count ? 100 + i : 0);
    // The elements end where the memory ends: reading one byte more traps.
    const source = memory.buffer.byteLength - 4 * count;
    words.set(pattern.subarray(0, count), source / 4);
    load({ source: source - 4, target: resultAddress, count });
    assert.deepEqual(words.slice(resultAddress / 4, resultAddress / 4 + lanes), pattern, `count ${count}`);

    bytes.fill(0xee);
    words.set(pattern.map((_, i) => 100 + i), operandAddress / 4);
    store({ source: operandAddress, target: resultAddress, count });
    const found = words.slice(resultAddress / 4, resultAddress / 4 + lanes + 2);
    const untouched = 0xeeeeeeee | 0;
    assert.deepEqual(
      Array.from(found),
      Array.from({ length: lanes + 2 }, (_, i) => i >= 1 && i <= count ? 99 + i : untouched),
      `count ${count}`,
    );
  }
});

testOnMachines("storeLane0 writes four bytes", (machine) => {
  const run = prepare(machine, { target: "pointer", value: "float" }, (m, args) => {
    const target = args.pointer("target");
    const value = args.float("value");
    m.storeLane0(target, 4, value);
    m.free(target, value);
  });
  bytes.fill(0);
  run({ target: resultAddress, value: 0.1 });
  assert.deepEqual(Array.from(floats.subarray(resultAddress / 4, resultAddress / 4 + 4)), [
    0,
    Math.fround(0.1),
    0,
    0,
  ]);
});

/** A kernel from two integers to one. */
function prepareInteger(
  machine: Machine,
  emit: (m: VectorMachine, d: Integer, a: Integer, b: Integer) => void,
): (a: number, b: number) => number {
  const run = prepare(machine, { target: "pointer", a: "integer", b: "integer" }, (m, args) => {
    const a = args.integer("a");
    const b = args.integer("b");
    const d = m.integer();
    emit(m, d, a, b);
    const target = args.pointer("target");
    m.storeI32(target, 4, d);
    m.free(a, b, d, target);
  });
  return (a, b) => {
    run({ target: resultAddress, a, b });
    return words[resultAddress / 4 + 1];
  };
}

const smallInteger = fc.integer({ min: -30000, max: 30000 });

testOnMachines("integer arithmetic with registers and constants", (machine) => {
  const withRegister = {
    add: prepareInteger(machine, (m, d, a, b) => m.addInteger(d, a, b)),
    subtract: prepareInteger(machine, (m, d, a, b) => m.subtractInteger(d, a, b)),
    multiply: prepareInteger(machine, (m, d, a, b) => m.multiplyInteger(d, a, b)),
    move: prepareInteger(machine, (m, d, a) => m.moveInteger(d, a)),
  };
  fc.assert(fc.property(smallInteger, smallInteger, (a, b) => {
    assert.equal(withRegister.add(a, b), a + b);
    assert.equal(withRegister.subtract(a, b), a - b);
    assert.equal(withRegister.multiply(a, b), a * b + 0);
    assert.equal(withRegister.move(a, b), a);
  }));
  for (const value of [0, 1, -1, 63, 64, -64, -65, 127, 128, 8191, 8192, 30000, -30000]) {
    const add = prepareInteger(machine, (m, d, a) => m.addInteger(d, a, value));
    const subtract = prepareInteger(machine, (m, d, a) => m.subtractInteger(d, a, value));
    const multiply = prepareInteger(machine, (m, d, a) => m.multiplyInteger(d, a, value));
    const overwrite = prepareInteger(machine, (m, d, a) => {
      m.addInteger(a, a, value);
      m.moveInteger(d, a);
    });
    for (const a of [-7, 0, 12345]) {
      assert.equal(add(a, 0), a + value);
      assert.equal(subtract(a, 0), a - value);
      assert.equal(multiply(a, 0), a * value + 0);
      assert.equal(overwrite(a, 0), a + value);
    }
  }
  for (const value of [0, -1, 2 ** 31 - 1, -(2 ** 31), 128, -129]) {
    assert.equal(prepareInteger(machine, (m, d) => m.setInteger(d, value))(0, 0), value);
  }
  for (const bits of [0, 3, 12]) {
    const left = prepareInteger(machine, (m, d, a) => m.shiftLeftInteger(d, a, bits));
    const right = prepareInteger(machine, (m, d, a) => m.shiftRightInteger(d, a, bits));
    const and = prepareInteger(machine, (m, d, a) => m.andInteger(d, a, (1 << bits) - 1));
    for (const a of [0, 1, 77777]) {
      assert.equal(left(a, 0), a << bits);
      assert.equal(right(a, 0), a >> bits);
      assert.equal(and(a, 0), a & ((1 << bits) - 1));
    }
  }
});

testOnMachines("loadI32 reads signed words, loadU16 unsigned half-words", (machine) => {
  const run = prepare(machine, { source: "pointer", target: "pointer" }, (m, args) => {
    const source = args.pointer("source");
    const target = args.pointer("target");
    const d = m.integer();
    m.loadI32(d, source, 8);
    m.storeI32(target, 4, d);
    m.loadU16(d, source, 6);
    m.storeI32(target, 8, d);
    m.free(source, target, d);
  });
  new DataView(memory.buffer).setInt32(operandAddress + 8, -123456789, true);
  new DataView(memory.buffer).setUint16(operandAddress + 6, 65533, true);
  run({ source: operandAddress, target: resultAddress });
  assert.equal(words[resultAddress / 4 + 1], -123456789);
  assert.equal(words[resultAddress / 4 + 2], 65533);
});

testOnMachines("storeColumns stores the transpose of four vectors, and nothing beside it", (machine) => {
  const { lanes } = machine;
  const [offset, stride] = [8, 20];
  const run = prepare(machine, { source: "pointer", target: "pointer" }, (m, args) => {
    const source = args.pointer("source");
    const target = args.pointer("target");
    const rows = [m.vector(), m.vector(), m.vector(), m.vector()] as const;
    rows.forEach((row, j) => m.load(row, source, j * lanes * 4));
    m.storeColumns(target, offset, stride, rows);
    m.free(source, target, ...rows);
  });
  const count = lanes * stride / 4 + offset / 4 + 8;
  for (let i = 0; i < 4 * lanes; i++) words[operandAddress / 4 + i] = 1000 + i;
  words.fill(-1, resultAddress / 4, resultAddress / 4 + count);
  run({ source: operandAddress, target: resultAddress });
  const expected = new Int32Array(count).fill(-1);
  for (let lane = 0; lane < lanes; lane++) {
    for (let j = 0; j < 4; j++) expected[(offset + lane * stride) / 4 + j] = 1000 + j * lanes + lane;
  }
  assert.deepEqual(words.slice(resultAddress / 4, resultAddress / 4 + count), expected);
});

testOnMachines("prefetch changes nothing, wherever it points", (machine) => {
  const run = prepare(machine, { target: "pointer" }, (m, args) => {
    const target = args.pointer("target");
    const anywhere = m.integer();
    m.prefetch(target, 0);
    m.setInteger(anywhere, -4096);
    m.prefetch(anywhere, 2 ** 31 - 1);
    m.free(target, anywhere);
  });
  words[resultAddress / 4] = 77;
  run({ target: resultAddress });
  assert.equal(words[resultAddress / 4], 77);
});

testOnMachines("forRange runs while index < to, with registers and constants", (machine) => {
  // d = Σ (index + 1000) over the trips: both the number of trips and the indices show.
  const body = (m: VectorMachine, d: Integer, index: Integer) => () => {
    m.addInteger(d, d, index);
    m.addInteger(d, d, 1000);
  };
  const expected = (from: number, to: number, step: number) => {
    let sum = 0;
    for (let i = from; i < to; i += step) sum += i + 1000;
    return sum;
  };
  const registers = prepareInteger(machine, (m, d, a, b) => {
    const index = m.integer();
    const step = m.integer();
    m.setInteger(d, 0);
    m.setInteger(step, 3);
    m.forRange(index, a, b, step, body(m, d, index));
    m.free(index, step);
  });
  const constantStart = prepareInteger(machine, (m, d, _a, b) => {
    const index = m.integer();
    m.setInteger(d, 0);
    m.forRange(index, 0, b, 1, body(m, d, index));
    m.free(index);
  });
  fc.assert(
    fc.property(fc.integer({ min: -20, max: 20 }), fc.integer({ min: -20, max: 20 }), (from, to) => {
      assert.equal(registers(from, to), expected(from, to, 3));
      assert.equal(constantStart(0, to), expected(0, to, 1));
    }),
  );
  for (const [from, to, step] of [[0, 0, 1], [0, 1, 1], [0, 5, 2], [3, 3, 1], [5, 3, 1], [-4, 4, 4]]) {
    const constants = prepareInteger(machine, (m, d) => {
      const index = m.integer();
      m.setInteger(d, 0);
      m.forRange(index, from, to, step, body(m, d, index));
      m.free(index);
    });
    assert.equal(constants(0, 0), expected(from, to, step));
  }
});

testOnMachines("repeat runs zero, one and many times, nested too", (machine) => {
  const run = prepareInteger(machine, (m, d, a, b) => {
    const inner = m.integer();
    m.setInteger(d, 0);
    m.repeat(a, () => {
      m.moveInteger(inner, b);
      m.repeat(inner, () => m.addInteger(d, d, 1));
      m.addInteger(d, d, 100);
    });
    m.free(inner);
  });
  for (const outer of [-5, -1, 0, 1, 2, 7]) {
    for (const inner of [-1, 0, 1, 9]) {
      assert.equal(run(outer, inner), Math.max(0, outer) * (100 + Math.max(0, inner)));
    }
  }
});

testOnMachines("when takes the branch its relation says, with and without otherwise", (machine) => {
  const relations: Record<Relation, (a: number, b: number) => boolean> = {
    equal: (a, b) => a === b,
    notEqual: (a, b) => a !== b,
    less: (a, b) => a < b,
    lessOrEqual: (a, b) => a <= b,
    greater: (a, b) => a > b,
    greaterOrEqual: (a, b) => a >= b,
  };
  for (
    const [relation, holds] of Object.entries(relations) as [Relation, (a: number, b: number) => boolean][]
  ) {
    const register = prepareInteger(machine, (m, d, a, b) => {
      m.when(a, relation, b, () => m.setInteger(d, 1), () => m.setInteger(d, 2));
    });
    const constant = prepareInteger(machine, (m, d, a) => {
      m.setInteger(d, 2);
      m.when(a, relation, -1, () => m.setInteger(d, 1));
    });
    for (const a of [-2, -1, 0, 1, 300]) {
      for (const b of [-2, -1, 0, 1, 300]) assert.equal(register(a, b), holds(a, b) ? 1 : 2);
      assert.equal(constant(a, 0), holds(a, -1) ? 1 : 2, `${a} ${relation} -1`);
    }
  }
});

testOnMachines("as many registers as promised can be held at once", (machine) => {
  const run = prepare(machine, { target: "pointer" }, (m, args) => {
    const target = args.pointer("target");
    const integers = Array.from({ length: m.integerRegisters - 1 }, () => m.integer());
    integers.forEach((register, i) => m.setInteger(register, i));
    const vectors = Array.from({ length: m.vectorRegisters }, () => m.vector());
    vectors.forEach((register, i) => m.constantI32(register, 1 << i));
    for (const register of vectors.slice(1)) m.addI32(vectors[0], vectors[0], register);
    for (const register of integers.slice(1)) m.addInteger(integers[0], integers[0], register);
    m.storeLane0(target, 0, vectors[0]);
    m.storeI32(target, 4, integers[0]);
    m.free(target, ...integers, ...vectors);
  });
  run({ target: resultAddress });
  const [vectorSum, integerSum] = words.subarray(resultAddress / 4, resultAddress / 4 + 2);
  assert.equal(vectorSum, (2 ** machine.vectorRegisters - 1) | 0);
  assert.ok(integerSum > 0);
});

testOnMachines("float arguments fill every lane; arguments are read in any order", (machine) => {
  const { lanes } = machine;
  const run = prepare(machine, { n: "integer", x: "float", target: "pointer", y: "float" }, (m, args) => {
    const target = args.pointer("target");
    const y = args.float("y");
    const x = args.float("x");
    const n = args.integer("n");
    m.subtract(x, x, y);
    m.store(target, 0, x);
    m.storeI32(target, 4 * m.lanes, n);
    m.free(target, x, y, n);
  });
  run({ n: -5, x: 2.5, target: resultAddress, y: 10 });
  assert.deepEqual(
    Array.from(floats.subarray(resultAddress / 4, resultAddress / 4 + lanes)),
    Array(lanes).fill(-7.5),
  );
  assert.equal(words[resultAddress / 4 + lanes], -5);
});

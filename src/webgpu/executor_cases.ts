/**
 * What every `GpuExecutor` must do, in this thread or in a worker: for tests.
 * @module
 */
import assert from "node:assert/strict";
import { UnsupportedError } from "../core/errors.ts";
import type { BufferRange, Shader, ShaderCall } from "../kernels/shader.ts";
import type { GpuExecutor } from "./executor.ts";

/** result[i] = a[i] · factor + term; with `rounds`, that often. */
const scaleShader: Shader = {
  key: "test_scale",
  bindings: ["read", "write", "uniform"],
  code: `
struct Sizes { count: u32, rounds: u32, factor: f32, term: f32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;
@group(0) @binding(2) var<uniform> sizes: Sizes;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= sizes.count) { return; }
  var x = a[id.x];
  for (var i = 0u; i < sizes.rounds; i++) { x = x * sizes.factor + sizes.term; }
  result[id.x] = x;
}`,
};

/** Floats in each buffer of the tests. */
const count = 100;

/** All of a buffer that `floatBuffers` made. */
export function wholeBuffer(buffer: number): BufferRange {
  return { buffer, byteOffset: 0, byteLength: 4 * count };
}

/** One call of `scaleShader`. */
export function scaleCall(from: number, to: number, factor: number, term: number, rounds = 1): ShaderCall {
  const uniforms = new Uint32Array([count, rounds, 0, 0]);
  new Float32Array(uniforms.buffer).set([factor, term], 2);
  return {
    shader: scaleShader,
    ranges: [wholeBuffer(from), wholeBuffer(to)],
    uniforms: [...uniforms],
    workgroups: [Math.ceil(count / 64), 1, 1],
  };
}

/** Buffers of floats. */
export function floatBuffers(executor: GpuExecutor, buffers: number): Promise<number[]> {
  return executor.createBuffers(new Array(buffers).fill(4 * count));
}

/** The floats of buffers. */
export async function readFloats(executor: GpuExecutor, ...buffers: number[]): Promise<number[][]> {
  const contents = await executor.read(buffers.map(wholeBuffer));
  return contents.map((bytes) => [...new Float32Array(bytes)]);
}

const constant = (value: number) => new Float32Array(count).fill(value);
const numbers = () => Float32Array.from({ length: count }, (_, index) => index);

/** Registers the tests. `open` makes an executor on the software adapter or a GPU; `skip`, why there is none. */
export function executorCases(
  name: string,
  open: () => Promise<GpuExecutor>,
  skip?: string,
): void {
  const test = (what: string, run: (executor: GpuExecutor) => Promise<void>) =>
    Deno.test({
      name: `${name} ${what}${skip ? ` (skipped: ${skip})` : ""}`,
      ignore: skip !== undefined,
      async fn() {
        const executor = await open();
        try {
          await run(executor);
        } finally {
          await executor.dispose();
        }
      },
    });

  test("makes buffers of zeros, and reads what was written where it was written", async (executor) => {
    const [a, b] = await floatBuffers(executor, 2);
    assert.notEqual(a, b);
    executor.write(a, 8, new Float32Array([1, 2, 3]).subarray(1));
    const [[x0, x1, x2, x3, x4], y] = await readFloats(executor, a, b);
    assert.deepEqual([x0, x1, x2, x3, x4], [0, 0, 2, 3, 0]);
    assert.deepEqual(y, [...constant(0)]);
    const [part, none] = await executor.read([{ buffer: a, byteOffset: 12, byteLength: 4 }, {
      buffer: b,
      byteOffset: 0,
      byteLength: 0,
    }]);
    assert.deepEqual([...new Float32Array(part)], [3]);
    assert.equal(none.byteLength, 0);
    assert.deepEqual(await executor.read([]), []);
  });

  test("carries calls out in order though nobody waits for them", async (executor) => {
    const [a, b, c] = await floatBuffers(executor, 3);
    // b = 2a + 1, c = 3b, then b again to see that it is read before it is written.
    const calls = [scaleCall(a, b, 2, 1), scaleCall(b, c, 3, 0), scaleCall(a, b, 0, 7)];
    const program = await executor.load({ name: "chain", calls });
    const data = numbers();
    executor.write(a, 0, data);
    data.fill(-1); // Whoever wrote it may use it for the next.
    const first = executor.submit(program);
    const before = readFloats(executor, b, c);
    executor.write(a, 0, constant(10));
    const second = executor.submit(program, [{ from: wholeBuffer(c), to: wholeBuffer(a) }]);
    executor.write(c, 0, constant(-2));
    const after = readFloats(executor, a, c);
    assert.deepEqual(await before, [[...constant(7)], Array.from(numbers(), (x) => 3 * (2 * x + 1))]);
    assert.deepEqual(await after, [[...constant(63)], [...constant(-2)]]);
    await Promise.all([first, second]);
  });

  test("takes any number of submits", async (executor) => {
    const [a, b] = await floatBuffers(executor, 2);
    const program = await executor.load({
      name: "count",
      calls: [scaleCall(a, b, 1, 1), scaleCall(b, a, 1, 0)],
    });
    const waits = Array.from({ length: 40 }, () => executor.submit(program));
    await Promise.all(waits);
    for (let i = 0; i < 10; i++) await executor.submit(program);
    assert.deepEqual(await readFloats(executor, a), [[...constant(50)]]);
  });

  test("compiles a shader once and tells how far it is", async (executor) => {
    const [a, b] = await floatBuffers(executor, 2);
    const told: [number, number][] = [];
    const calls = [scaleCall(a, b, 2, 0), scaleCall(b, a, 2, 0)];
    await executor.load({ name: "two", calls }, (...progress) => told.push(progress));
    assert.deepEqual(told.at(-1), [1, 1]);
  });

  test("runs programs of copies alone, and forgets programs and buffers", async (executor) => {
    const [a, b] = await floatBuffers(executor, 2);
    executor.write(a, 0, numbers());
    const program = await executor.load({ name: "nothing", calls: [] });
    await executor.submit(program, [{ from: wholeBuffer(a), to: wholeBuffer(b) }]);
    executor.destroyBuffers([a]);
    assert.deepEqual(await readFloats(executor, b), [[...numbers()]]);
    await assert.rejects(readFloats(executor, a), {
      message: `Cannot read from the GPU: there is no buffer ${a}`,
    });
    executor.unload(program);
    await assert.rejects(executor.submit(program), {
      message: `Cannot run program ${program}: it is not loaded`,
    });
    const [c] = await floatBuffers(executor, 1);
    assert.ok(c !== a && c !== b, "a number is given once");
    assert.deepEqual(await readFloats(executor, b, c), [[...numbers()], [...constant(0)]]);
  });

  test("names the shader that does not compile, and its line", async (executor) => {
    const [a, b] = await floatBuffers(executor, 2);
    const call = scaleCall(a, b, 1, 0);
    const load = (change: Partial<Shader>) =>
      executor.load({ name: "train", calls: [{ ...call, shader: { ...scaleShader, ...change } }] });
    await assert.rejects(
      load({ key: "bad_words", code: "\n\nfn main( {" }),
      /^Error: Cannot load train: shader bad_words does not compile: line 3: .*expected [^\n]+$/,
    );
    await assert.rejects(
      load({ key: "bad_types", code: scaleShader.code.replace("var x = a[id.x]", "var x = a[id.x] + id") }),
      /^Error: Cannot load train: shader bad_types does not compile: [^\n]+$/,
    );
    await assert.rejects(
      load({ key: "bad_entry", code: scaleShader.code.replace("fn main", "fn start") }),
      /^Error: Cannot load train: shader bad_entry does not compile: [^\n]*main[^\n]*$/,
    );
    await assert.rejects(
      load({ key: "bad_bindings", bindings: ["write", "read", "uniform"] }),
      /^Error: Cannot load train: shader bad_bindings does not compile: [^\n]+$/,
    );
    const program = await executor.load({ name: "good", calls: [call] });
    await executor.submit(program); // What failed before is forgotten.
  });

  test("refuses a key with two codes", async (executor) => {
    const [a, b] = await floatBuffers(executor, 2);
    const call = scaleCall(a, b, 1, 0);
    const other = { ...call, shader: { ...scaleShader, code: `${scaleShader.code}\n` } };
    await assert.rejects(executor.load({ name: "train", calls: [call, other] }), {
      message: "Cannot load train: shader test_scale has two codes: its key forgets a constant",
    });
  });

  test("names the program that WebGPU refuses", async (executor) => {
    const [a, b] = await floatBuffers(executor, 2);
    const tooLong = { ...wholeBuffer(b), byteLength: 1 << 20 };
    await assert.rejects(
      executor.load({
        name: "train",
        calls: [{ ...scaleCall(a, b, 1, 0), ranges: [wholeBuffer(a), tooLong] }],
      }),
      /^Error: Cannot load train: [^\n]+$/,
    );
    await assert.rejects(executor.load({ name: "train", calls: [scaleCall(a, 99, 1, 0)] }), {
      message: "Cannot load train: there is no buffer 99",
    });
    const wrongGrid = { ...scaleCall(a, b, 1, 0), workgroups: [70000, 1, 1] as const };
    const program = await executor.load({ name: "evaluate", calls: [wrongGrid] });
    await assert.rejects(executor.submit(program), /^Error: Cannot run evaluate: [^\n]+$/);
    const good = await executor.load({ name: "good", calls: [scaleCall(a, b, 0, 5)] });
    await assert.rejects(
      executor.submit(good, [{ from: wholeBuffer(b), to: tooLong }, { from: tooLong, to: wholeBuffer(a) }]),
      /^Error: Cannot run good: [^\n]+$/,
    );
    await executor.submit(good);
    assert.deepEqual(await readFloats(executor, b), [[...constant(5)]]);
  });

  test("refuses a buffer that is too large: it tells the bytes", async (executor) => {
    await assert.rejects(
      executor.createBuffers([4, 2 ** 50]),
      (error) =>
        error instanceof UnsupportedError &&
        /^Cannot make a buffer of 1125899906842624 bytes: .+ allows \d+$/.test(error.message),
    );
    await floatBuffers(executor, 1);
  });

  for (const [byteOffset, byteLength, what] of [[396, 8, "past the end"], [2, 4, "within a word"]] as const) {
    test(`rejects with what a write ${what} did wrong`, async (executor) => {
      const [a] = await floatBuffers(executor, 1);
      executor.write(a, byteOffset, new Uint8Array(byteLength));
      const bytes = `${byteOffset} to ${byteOffset + byteLength}`;
      const message =
        `Cannot use the GPU: cannot write bytes ${bytes} of buffer ${a}: it has 400, in words of 4`;
      await assert.rejects(readFloats(executor, a), { message });
      await assert.rejects(floatBuffers(executor, 1), { message });
    });
  }

  test("rejects calls after it was disposed of, and finishes those before", async (executor) => {
    const [a, b] = await floatBuffers(executor, 2);
    const program = await executor.load({ name: "late", calls: [scaleCall(a, b, 1, 4)] });
    const submitted = executor.submit(program);
    const read = readFloats(executor, b);
    const disposed = executor.dispose();
    assert.deepEqual(await read, [[...constant(4)]]);
    await submitted;
    await disposed;
    await executor.dispose();
    const message = "Cannot use the GPU: its executor is disposed of";
    executor.write(a, 0, constant(1));
    executor.destroyBuffers([a]);
    executor.unload(program);
    await assert.rejects(executor.submit(program), { message });
    await assert.rejects(readFloats(executor, a), { message });
    await assert.rejects(floatBuffers(executor, 1), { message });
    await assert.rejects(executor.load({ name: "late", calls: [] }), { message });
    assert.equal(await Promise.race([executor.lost, Promise.resolve("not lost")]), "not lost");
  });
}

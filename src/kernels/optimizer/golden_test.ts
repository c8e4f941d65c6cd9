/** All rules against PyTorch: the references in f64, the kernels on every machine, the shaders. */
import assert from "node:assert/strict";
import { Graph } from "../../graph/graph.ts";
import { availableMachines, type Machine } from "../../machines/mod.ts";
import { Arena } from "../../plan/arena.ts";
import { InlineExecutor, prepare } from "../../plan/executor.ts";
import { planGraph } from "../../plan/plan.ts";
import { poison } from "../run_operation.ts";
import { runCalls, type TestGpu, testGpu } from "../shader_conformance.ts";
import { optimizerDefaults, updateRule } from "./optimizers.ts";
import type {
  AdamSettings,
  FloatArray,
  GroupStep,
  RmspropSettings,
  SgdSettings,
  UpdateRule,
} from "./rule.ts";
import { updateSteps } from "./steps.ts";
import { updateCalls } from "./wgsl.ts";

/** A configuration, and the weights after three steps. */
interface Golden {
  readonly rule: UpdateRule;
  readonly weightDecay: number;
  /** Whether the learning rate changes from step to step, and with it the momentum where there is one. */
  readonly cycled?: boolean;
  readonly weights: readonly [number, number];
}

const adam = (name: "adamw" | "adam", settings: Partial<AdamSettings> = {}) =>
  updateRule({ ...optimizerDefaults(name) as AdamSettings, ...settings });
const sgd = (settings: Partial<SgdSettings>) =>
  updateRule({ ...optimizerDefaults("sgd") as SgdSettings, momentum: 0.9, ...settings });
const rmsprop = (settings: Partial<RmspropSettings>) =>
  updateRule({ ...optimizerDefaults("rmsprop") as RmspropSettings, ...settings });

const start = [1, -2];
const gradients = [[0.5, -1], [0.25, 2], [-0.75, 0.1]];
const learningRates = [0.1, 0.2, 0.05];
const momenta = [0.95, 0.9, 0.85];

// torch.optim in float64, one tensor at a time, PyTorch 2.13. Where rates are cycled: the step functions of PyTorch 2.15's
// source, run on NumPy arrays in place of tensors; so run they give the other rows too.
const table: Readonly<Record<string, Golden>> = {
  "AdamW": { rule: adam("adamw"), weightDecay: 0.1, weights: [0.7882008997, -1.9099595859] },
  "AdamW, β₂ 0.5": {
    rule: adam("adamw", { beta2: 0.5 }),
    weightDecay: 0.1,
    weights: [0.7763568130, -1.9110726648],
  },
  "AdamW, β₂ 0.5, AMSGrad": {
    rule: adam("adamw", { beta2: 0.5, amsgrad: true }),
    weightDecay: 0.1,
    weights: [0.7901780547, -1.9007617382],
  },
  "Adam": { rule: adam("adam"), weightDecay: 0.1, weights: [0.7968643300, -1.9416188939] },
  "SGD, momentum": { rule: sgd({}), weightDecay: 0.1, weights: [0.8385240000, -2.0095480000] },
  "SGD, Nesterov": {
    rule: sgd({ nesterov: true }),
    weightDecay: 0.1,
    weights: [0.8297111460, -2.0618972920],
  },
  "SGD, dampening": {
    rule: sgd({ dampening: 0.5 }),
    weightDecay: 0,
    weights: [0.8782500000, -1.9240000000],
  },
  "RMSprop": { rule: rmsprop({}), weightDecay: 0, weights: [0.3553487544, -1.9402692235] },
  "RMSprop, momentum": {
    rule: rmsprop({ alpha: 0.9, momentum: 0.9 }),
    weightDecay: 0,
    weights: [0.1245950603, -1.7009213370],
  },
  "RMSprop, centred": {
    rule: rmsprop({ alpha: 0.9, centered: true }),
    weightDecay: 0,
    weights: [0.7667274227, -1.9712231117],
  },
  "AdamW, cycled": {
    rule: adam("adamw"),
    weightDecay: 0.1,
    cycled: true,
    weights: [0.7592631378, -1.9505626369],
  },
  "Adam, β₂ 0.5, AMSGrad, cycled": {
    rule: adam("adam", { beta2: 0.5, amsgrad: true }),
    weightDecay: 0.1,
    cycled: true,
    weights: [0.7797919307, -1.9898980194],
  },
  "SGD, no momentum, cycled": {
    rule: sgd({ momentum: 0 }),
    weightDecay: 0.1,
    cycled: true,
    weights: [0.9043440000, -2.2361880000],
  },
  "SGD, Nesterov, cycled": {
    rule: sgd({ nesterov: true }),
    weightDecay: 0.1,
    cycled: true,
    weights: [0.6888128870, -2.2796507740],
  },
  "SGD, dampening, cycled": {
    rule: sgd({ dampening: 0.5 }),
    weightDecay: 0.1,
    cycled: true,
    weights: [0.7840960000, -1.8356920000],
  },
  "RMSprop, centred, momentum, cycled": {
    rule: rmsprop({ alpha: 0.9, centered: true, momentum: 0.9 }),
    weightDecay: 0.1,
    cycled: true,
    weights: [-0.3470219794, -1.5899340643],
  },
};

const groupAt = ({ rule, weightDecay, cycled }: Golden, step: number): GroupStep => ({
  learningRate: cycled ? learningRates[step - 1] : 0.1,
  weightDecay,
  momentum: cycled && rule.takesMomentum ? momenta[step - 1] : undefined,
});

function checkClose(name: string, found: FloatArray, wanted: readonly number[], tolerance: number): void {
  wanted.forEach((value, i) => {
    assert.ok(
      Math.abs(found[i] - value) <= tolerance * Math.abs(value),
      `${name}: w[${i}] is ${found[i]}, wanted ${value}`,
    );
  });
}

function runReference(golden: Golden): Float64Array {
  const weights = Float64Array.from(start);
  const states = golden.rule.states.map(() => new Float64Array(2));
  gradients.forEach((gradient, i) => {
    golden.rule.reference({ weights, states }, gradient, groupAt(golden, i + 1), i + 1);
  });
  return weights;
}

async function runKernel(golden: Golden, machine: Machine): Promise<Float32Array> {
  const { rule } = golden;
  const arena = new Arena(2 ** 16);
  const place = (length: number) => arena.allocate(4 * length, "test");
  const [weights, gradient, clip, scalars] = [place(2), place(2), place(1), place(rule.scalars.length)];
  const range = { weights, gradients: gradient, states: rule.states.map(() => place(2)), scalars, count: 2 };
  arena.float32(weights, 2).set(start);
  arena.float32(clip, 1)[0] = 1;
  const { lanes, vectorRegisters } = machine;
  const plan = planGraph(new Graph(), {
    target: { lanes, vectorRegisters, tile: lanes, workers: 1 },
    bindings: new Map(),
    base: 0,
    epilogue: updateSteps({ rule, ranges: [range], clip, workers: 1 }),
  });
  const executor = new InlineExecutor(machine, 1, arena);
  const program = await prepare(executor, plan);
  for (const [i, values] of gradients.entries()) {
    arena.float32(gradient, 2).set(values);
    arena.float32(scalars, rule.scalars.length).set(rule.scalarsOf(groupAt(golden, i + 1), i + 1));
    await executor.run(program);
  }
  return arena.float32(weights, 2).slice();
}

async function runShader(golden: Golden, gpu: TestGpu): Promise<Float32Array> {
  const { rule } = golden;
  const lengths = [2, ...rule.states.map(() => 2), 2, rule.scalars.length, 2];
  const places = lengths.map((length, buffer) => ({ buffer, byteOffset: 256, byteLength: 4 * length }));
  const updated = places.slice(0, rule.states.length + 1);
  const [weights, ...states] = updated;
  const [given, scalars, clip] = places.slice(updated.length);
  const range = { weights, states, gradients: given, scalars, count: 2 };
  const calls = updateCalls({ rule, ranges: [range], clip, target: gpu.target });
  let values: Float32Array[] = updated.map((_, part) => Float32Array.from(part === 0 ? start : [0, 0]));
  for (const [i, gradient] of gradients.entries()) {
    const operands = [
      Float32Array.from(gradient),
      rule.scalarsOf(groupAt(golden, i + 1), i + 1),
      Float32Array.of(0, 1),
    ];
    const contents = [...values, ...operands].map((array, buffer) =>
      [buffer, new Uint32Array(array.buffer)] as const
    );
    const words = await runCalls(
      gpu,
      calls,
      lengths.map((length) => 4 * length),
      new Map(contents),
      updated,
      poison,
    );
    values = words.map(({ buffer }) => new Float32Array(buffer));
  }
  return values[0];
}

for (const [name, golden] of Object.entries(table)) {
  Deno.test(`${name}: the reference reproduces PyTorch`, () => {
    checkClose(name, runReference(golden), golden.weights, 1e-9);
  });

  Deno.test(`${name}: the kernels reproduce PyTorch`, async () => {
    for (const machine of availableMachines()) {
      checkClose(`${name} on ${machine.isa}`, await runKernel(golden, machine), golden.weights, 1e-6);
    }
  });

  Deno.test(`${name}: the shaders reproduce PyTorch`, async () => {
    const gpu = await testGpu();
    if (gpu) {
      checkClose(
        `${name} on ${gpu.executor.adapter.name}`,
        await runShader(golden, gpu),
        golden.weights,
        1e-6,
      );
    }
  });
}

/**
 * sums += scale · gradients: gradients of several batches make one step.
 * @module
 */
import type { Vector } from "../../assemblers/vector_machine.ts";
import { splitRange, type Step } from "../../graph/operation.ts";
import { callKernel, defineKernel, type KernelCall } from "../kernel.ts";
import type { FlatRange } from "../global_norm/steps.ts";

/** Elements a worker's share is a multiple of: whole cache lines. */
const grain = 64;

/** sums[i] = sums[i] + scale · gradients[i] for i < count; with `begins` sums[i] = scale · gradients[i]. */
const kernels = [false, true].map((begins) =>
  defineKernel({
    key: begins ? "accumulate_begin" : "accumulate",
    arguments: { sums: "pointer", gradients: "pointer", scale: "pointer", count: "integer" },
    emit(vm, args) {
      const sums = args.pointer("sums");
      const gradients = args.pointer("gradients");
      const scaleAddress = args.pointer("scale");
      const count = args.integer("count");
      const [scale, sum, gradient] = [vm.vector(), vm.vector(), vm.vector()];
      vm.broadcast(scale, scaleAddress, 0);
      const add = (d: Vector, g: Vector) => begins ? vm.multiply(d, g, scale) : vm.fma(d, g, scale);
      const iterations = vm.integer();
      vm.shiftRightInteger(iterations, count, Math.log2(vm.lanes));
      vm.repeat(iterations, () => {
        if (!begins) vm.load(sum, sums, 0);
        vm.load(gradient, gradients, 0);
        add(sum, gradient);
        vm.store(sums, 0, sum);
        for (const pointer of [sums, gradients]) vm.addInteger(pointer, pointer, 4 * vm.lanes);
      });
      vm.andInteger(count, count, vm.lanes - 1);
      vm.when(count, "greater", 0, () => {
        if (!begins) vm.loadFirst(sum, sums, 0, count);
        vm.loadFirst(gradient, gradients, 0, count);
        add(sum, gradient);
        vm.storeFirst(sums, 0, sum, count);
      });
      vm.free(scale, sum, gradient, sums, gradients, scaleAddress, count, iterations);
    },
  })
);

/** What to add to what. Addresses are bytes from the arena's start. */
export interface AccumulateRequest {
  /** Gradients; their sums lie `distance` bytes further on. */
  readonly ranges: readonly Pick<FlatRange, "address" | "count">[];
  readonly distance: number;
  /** An f32: the factor. */
  readonly scale: number;
  /** Whether sums begin with these gradients, whatever they held before. */
  readonly begins: boolean;
  readonly workers: number;
}

/** One step that adds gradients to their sums. */
export function accumulateSteps({ ranges, distance, scale, begins, workers }: AccumulateRequest): Step[] {
  const [adding, beginning] = kernels;
  const kernel = begins ? beginning : adding;
  const calls = Array.from({ length: workers }, (): KernelCall[] => []);
  for (const { address, count } of ranges) {
    splitRange(count, workers, grain).forEach(({ begin, end }, worker) => {
      if (begin === end) return;
      const gradients = address + 4 * begin;
      calls[worker].push(
        callKernel(kernel, { sums: gradients + distance, gradients, scale, count: end - begin }),
      );
    });
  }
  return [{ name: "accumulate", calls }];
}

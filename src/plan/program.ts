/**
 * A plan written into the arena, so that workers replay it without a message per operation.
 *
 * Words of a program, per worker: the number of phases, then for each phase the number of calls followed by a
 * (kernel number, address of the argument words) pair per call. Kernel numbers index the executor's table.
 * @module
 */
import type { Plan } from "./plan.ts";

/** A plan in the arena, ready to run. */
export interface Program {
  /** Address of each worker's words. */
  readonly entries: readonly number[];
  /** For error messages: what each phase does. */
  readonly phaseNames: readonly string[];
}

/** Bytes `writeProgram` needs for a plan. */
export function programBytes(plan: Plan): number {
  let words = plan.target.workers;
  for (const phase of plan.phases) {
    for (const calls of phase.calls) {
      words += 1;
      for (const call of calls) words += 2 + call.words.length;
    }
  }
  return words * 4;
}

/** Writes a plan at `address` (a multiple of 4). `kernelNumber` gives the executor's number of a kernel key. */
export function writeProgram(
  plan: Plan,
  memory: WebAssembly.Memory,
  address: number,
  kernelNumber: (key: string) => number,
): Program {
  const words = new Int32Array(memory.buffer);
  let argument = address / 4;
  let cursor = argument;
  for (const phase of plan.phases) {
    for (const calls of phase.calls) for (const call of calls) cursor += call.words.length;
  }
  const entries: number[] = [];
  for (let worker = 0; worker < plan.target.workers; worker++) {
    entries.push(cursor * 4);
    words[cursor++] = plan.phases.length;
    for (const phase of plan.phases) {
      const calls = phase.calls[worker];
      words[cursor++] = calls.length;
      for (const call of calls) {
        words[cursor++] = kernelNumber(call.kernel.key);
        words[cursor++] = argument * 4;
        words.set(call.words, argument);
        argument += call.words.length;
      }
    }
  }
  return { entries, phaseNames: plan.phases.map((phase) => phase.name) };
}

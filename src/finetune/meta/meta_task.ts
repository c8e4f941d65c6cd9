/**
 * MetaAdamW's passes on a worker. The arrays are views of shared memory, so that they arrive without a copy.
 * @module
 */
import type { Task } from "../../plan/executor.ts";
import { type PassArguments, passes, type PassSums } from "./passes.ts";

/** A pass over stretches, one after the other. */
export interface PassRequest<P extends keyof PassSums = keyof PassSums> {
  readonly pass: P;
  readonly stretches: readonly PassArguments[P][];
}

/** Makes a pass; gives the sums of each stretch. */
export const task: Task<PassRequest, PassSums[keyof PassSums][]> = {
  name: "metaPasses",
  run: (_memory, request) => runPass(request),
};

function runPass<P extends keyof PassSums>({ pass, stretches }: PassRequest<P>): PassSums[P][] {
  const run = passes[pass];
  return stretches.map((stretch) => run(stretch));
}

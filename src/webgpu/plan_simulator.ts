/**
 * Plays plans with made-up shaders and terms instead of numbers, for tests: a call that finds in a buffer what another value
 * left there makes another term than the graph does.
 * @module
 */
import { byteLength, Graph, tiled, type Value } from "../graph/graph.ts";
import type { Operation } from "../graph/operation.ts";
import { defineLowering, type Shader, type ShaderCall } from "../kernels/shader.ts";

/** Sizes of the results; a node's `seed` tells its terms from all others. */
export interface MixAttributes {
  readonly seed: number;
  readonly features: readonly number[];
}

/** Takes any tiled operands, gives as many results as its attributes say. */
export const mix: Operation<MixAttributes> = {
  name: "mix",
  infer: ([first], { features }) => features.map((count) => tiled(count, first!.shape[1])),
  reference: () => [],
  lower: () => [],
};

function madeUp(name: string, reads: number, writes: number): Shader {
  const bindings = [...new Array(reads).fill("read"), ...new Array(writes).fill("write"), "uniform"];
  return { key: `${name}_${reads}_${writes}`, code: "", bindings };
}

/** In two calls with scratch between them, so that operands are read after something was written. */
export const mixShaders = defineLowering<MixAttributes>({
  operation: mix,
  scratchBytes: ({ inputTypes }) => [byteLength(inputTypes[0]!)],
  lower({ attributes: { seed }, inputs, outputs, scratch }) {
    const reads = inputs.map((input) => input!.parts[0]);
    const writes = outputs.map(({ parts }) => parts[0]);
    const workgroups = [1, 1, 1] as const;
    return [
      {
        shader: madeUp("collect", reads.length, 1),
        ranges: [...reads, scratch[0]],
        uniforms: [seed],
        workgroups,
      },
      {
        shader: madeUp("spread", reads.length + 1, writes.length),
        ranges: [...reads, scratch[0], ...writes],
        uniforms: [seed],
        workgroups,
      },
    ];
  },
});

/** Terms by number: equal terms have equal numbers, so that terms of terms stay short. */
export class Terms {
  readonly #numbers = new Map<string, number>();

  of(name: string, ...parts: readonly (number | undefined)[]): number {
    const text = `${name}(${parts.join(", ")})`;
    const number = this.#numbers.get(text) ?? this.#numbers.size;
    this.#numbers.set(text, number);
    return number;
  }
}

/** Runs calls on terms by buffer. Each writes the terms of what it reads. */
export function playCalls(calls: readonly ShaderCall[], contents: Map<number, number>, terms: Terms): void {
  for (const { shader, ranges, uniforms } of calls) {
    const reads = ranges.filter((_, index) => shader.bindings[index] === "read");
    const read = reads.map(({ buffer }) => contents.get(buffer));
    const name = `${shader.key}#${uniforms}`;
    ranges.slice(reads.length).forEach(({ buffer }, index) => {
      contents.set(buffer, terms.of(`${name}.${index}`, ...read));
    });
  }
}

/** The terms of all results of a graph of `mix` by value id, each made once and kept. */
export function playGraph(
  graph: Graph,
  given: ReadonlyMap<Value, number>,
  terms: Terms,
): Map<number, number> {
  const byId = new Map(Array.from(given, ([{ id }, term]) => [id, term]));
  for (const { inputs, outputs, attributes } of graph.nodes) {
    const { seed } = attributes as MixAttributes;
    const read = inputs.map((input) => byId.get(input!.id));
    const scratch = terms.of(`${madeUp("collect", read.length, 1).key}#${seed}.0`, ...read);
    const spread = madeUp("spread", read.length + 1, outputs.length);
    outputs.forEach(({ id }, index) => {
      byId.set(id, terms.of(`${spread.key}#${seed}.${index}`, ...read, scratch));
    });
  }
  return byId;
}

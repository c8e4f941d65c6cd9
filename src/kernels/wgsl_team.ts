/**
 * Teams of invocations that work on one column together, and what they find out in common through workgroup memory.
 * @module
 */
import { workgroupSize } from "./wgsl_shader.ts";

/** Elements that an invocation has of a column, about: enough to hide latency behind, few enough for registers. */
const elementsPerLane = 4;

/** A team's size, a power of two, for columns of so many elements. Teams fill a workgroup. */
export function teamLanes(elements: number): number {
  let lanes = 1;
  while (lanes < workgroupSize && lanes * elementsPerLane < elements) lanes *= 2;
  return lanes;
}

/**
 * `fn NAME(value: TYPE, lane: u32) -> TYPE`: Σ or maximum over a team's lanes, given to all of them. All invocations of the
 * workgroup must call it. The order of the sum depends on the size of the team alone.
 */
export function teamFunction(
  name: string,
  lanes: number,
  { type = "f32", combine = (a: string, b: string) => `${a} + ${b}` } = {},
): string {
  if (lanes === 1) return `fn ${name}(value: ${type}, lane: u32) -> ${type} { return value; }`;
  const halvings: string[] = [];
  for (let stride = lanes / 2; stride >= 1; stride /= 2) {
    const [own, other] = [`${name}Values[lane]`, `${name}Values[lane + ${stride}u]`];
    halvings.push(`
  if ((lane & ${lanes - 1}u) < ${stride}u) { ${own} = ${combine(own, other)}; }
  workgroupBarrier();`);
  }
  return `
var<workgroup> ${name}Values: array<${type}, ${workgroupSize}>;
fn ${name}(value: ${type}, lane: u32) -> ${type} {
  ${name}Values[lane] = value;
  workgroupBarrier();${halvings.join("")}
  let whole = ${name}Values[lane - (lane & ${lanes - 1}u)];
  workgroupBarrier();
  return whole;
}`;
}

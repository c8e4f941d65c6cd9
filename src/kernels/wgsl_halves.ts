/**
 * Storage in float16 for shaders that are written for float32.
 *
 * Arithmetic stays what it is: elements are made float32 as they are read, and rounded to the nearest float16 as they are
 * written; beyond ±65504 they become infinite. So one text serves both, as long as it names a binding's elements in no other
 * way than `name[index]`, and writes them whole. Any other way does not compile.
 * @module
 */
import type { BufferRange, Shader, ShaderCall } from "./shader.ts";

const halfTypes = { f32: "f16", vec4f: "vec4h" } as const;
type WholeType = keyof typeof halfTypes;

const declaration =
  /@group\(0\) @binding\((\d+)\) var<storage, (?:read|read_write)> (\w+): array<(f32|vec4f)>;/g;

/** The call with those of its ranges in float16 that are among `halves`: the very objects, not their like. */
export function callInHalves(call: ShaderCall, halves: ReadonlySet<BufferRange>): ShaderCall {
  const isHalf = call.ranges.map((range) => halves.has(range));
  return isHalf.includes(true) ? { ...call, shader: shaderInHalves(call.shader, isHalf) } : call;
}

/**
 * The shader with some of its storage bindings in float16; `isHalf` counts them as `ShaderCall.ranges` does.
 * @throws Error naming the shader where such a binding is no array of `f32` or `vec4f`.
 */
export function shaderInHalves({ key, code, bindings }: Shader, isHalf: readonly boolean[]): Shader {
  const storage = bindings.flatMap((use, binding) => use === "uniform" ? [] : [binding]);
  const wanted = storage.filter((_, index) => isHalf[index]);
  const arrays = new Map<string, WholeType>();
  const declared = code.replace(declaration, (text, binding, name, type: WholeType) => {
    if (!wanted.includes(Number(binding))) return text;
    arrays.set(name, type);
    return text.replace(`array<${type}>`, `array<${halfTypes[type]}>`);
  });
  if (arrays.size !== wanted.length) {
    throw new Error(`Cannot store bindings ${wanted} of shader ${key} in float16: wanted arrays of f32`);
  }
  const enabled = code.includes("enable f16;") ? "" : "enable f16;\n";
  return { key: `${key}_f16at${wanted.join("_")}`, code: enabled + converted(declared, arrays), bindings };
}

/** The text with what is read from the arrays made float32, and what is written to them float16. */
function converted(text: string, arrays: ReadonlyMap<string, WholeType>): string {
  const element = new RegExp(`(?<![\\w.])(${[...arrays.keys()].join("|")})\\[`, "g");
  let result = "";
  let done = 0;
  for (let match = element.exec(text); match; match = element.exec(text)) {
    const [, name] = match;
    const type = arrays.get(name)!;
    const end = closingBracket(text, element.lastIndex);
    const place = `${name}[${converted(text.slice(element.lastIndex, end), arrays)}]`;
    const value = `${type}(${place})`;
    const assignment = /^\]\s*([-+*/]?)=(?!=)/.exec(text.slice(end));
    result += text.slice(done, match.index);
    if (!assignment) {
      result += value;
      done = end + 1;
    } else {
      const begin = end + assignment[0].length;
      done = text.indexOf(";", begin);
      const right = converted(text.slice(begin, done), arrays).trim();
      const operator = assignment[1];
      result += `${place} = ${halfTypes[type]}(${operator ? `${value} ${operator} (${right})` : right})`;
    }
    element.lastIndex = done;
  }
  return result + text.slice(done);
}

/** Where the bracket closes that opened just before `from`. */
function closingBracket(text: string, from: number): number {
  let depth = 1;
  let at = from;
  for (; depth > 0; at++) {
    if (text[at] === "[") depth++;
    if (text[at] === "]") depth--;
  }
  return at - 1;
}

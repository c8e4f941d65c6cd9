/**
 * The gradient of attention on the GPU. Probabilities are recomputed from the log-sum-exp, twice: once by the owners of queries for
 * gradQ, once by the owners of keys for gradK and gradV. So every sum has one owner, who adds in a fixed order.
 * @module
 */
import { defineLowering, type Shader, wholeRange } from "../shader.ts";
import { callShader, workgroupSize, writeShader } from "../wgsl_shader.ts";
import { attentionGradient } from "./gradient.ts";
import { attentionSizes } from "./lowering.ts";
import { directCall, directKeyShader, directQueryShader, directShape } from "./wgsl_direct.ts";
import { attentionCall, attentionShader, tileShape } from "./wgsl_frame.ts";
import {
  addWeighted,
  declareSums,
  eachRow,
  innerProduct,
  loadTile,
  storeSums,
  type TileShape,
  tileSide,
} from "./wgsl_tiles.ts";

/** What both shaders of scores read. */
const scoreOperands = { reads: ["gradContext", "q", "k", "v"], readsRows: ["logSumExp", "delta"] };

/** Owns queries: gradQ_i = Σ_j gradScore_ij · k_j / √headSize. */
function queryShader(shape: TileShape): Shader {
  return attentionShader({
    name: "attention_gradient_q",
    ...scoreOperands,
    writes: ["gradQ"],
    declarations: loadTile("q", "left") + loadTile("k", "across") + loadTile("k", "right") +
      loadTile("gradContext", "left") + loadTile("v", "across"),
    main: `
  ${declareSums("sum", shape)}
  // Rows that are not owned have finite numbers, which nobody stores.
  let own = head * sizes.columns + min(vec4u(ownFirst + row) + 8u * four, vec4u(end - 1u));
  let logarithms = vec4f(${eachOf("logSumExp[own[I]]")});
  let deltas = vec4f(${eachOf("delta[own[I]]")});
  for (var keyFirst = begin; keyFirst < blocksEnd; keyFirst += ${tileSide}u) {
    ${innerProduct("scores", "qToLeft", "kAcross", "keyFirst")}
    ${innerProduct("grads", "gradContextToLeft", "vAcross", "keyFirst")}
    let keys = keyFirst + 4u * column + four;
    let isKey = keys < vec4u(end);
    ${
      eachRow((i) => `
    ${shape.dropout ? `grads[${i}] *= keepFactors(vec4u(ownFirst + row + ${8 * i}u), keys - begin);` : ""}
    scores[${i}] = exp(scores[${i}] * sizes.scale - logarithms[${i}]) * (grads[${i}] - deltas[${i}]);
    scores[${i}] = select(vec4f(), scores[${i}], isKey);`)
    }
    ${addWeighted("sum", "scores", "kToRight", "keyFirst", shape)}
  }
  ${storeSums("sum", "gradQ", shape, (vector) => `${vector} * sizes.scale`)}`,
  }, shape);
}

/** Owns keys: gradV_j = Σ_i keep_ij · P_ij · gradContext_i, gradK_j = Σ_i gradScore_ij · q_i / √headSize. */
function keyShader(shape: TileShape): Shader {
  return attentionShader({
    name: "attention_gradient_kv",
    ...scoreOperands,
    writes: ["gradK", "gradV"],
    declarations: loadTile("k", "left") + loadTile("q", "across") + loadTile("q", "right") +
      loadTile("v", "left") + loadTile("gradContext", "across") + loadTile("gradContext", "right"),
    main: `
  ${declareSums("sumK", shape)}
  ${declareSums("sumV", shape)}
  for (var queryFirst = begin; queryFirst < blocksEnd; queryFirst += ${tileSide}u) {
    ${innerProduct("scores", "kToLeft", "qAcross", "queryFirst")}
    ${innerProduct("grads", "vToLeft", "gradContextAcross", "queryFirst")}
    let queries = queryFirst + 4u * column + four;
    let isQuery = queries < vec4u(end);
    let seen = head * sizes.columns + min(queries, vec4u(end - 1u));
    let logarithms = vec4f(${eachOf("logSumExp[seen[I]]")});
    let deltas = vec4f(${eachOf("delta[seen[I]]")});
    ${
      eachRow((i) => `
    scores[${i}] = select(vec4f(), exp(scores[${i}] * sizes.scale - logarithms), isQuery);
    ${
        shape.dropout
          ? `let keep${i} = keepFactors(queries, vec4u(ownFirst + row + ${8 * i}u - begin));
    grads[${i}] = select(vec4f(), scores[${i}] * (grads[${i}] * keep${i} - deltas), isQuery);
    scores[${i}] *= keep${i};`
          : `grads[${i}] = select(vec4f(), scores[${i}] * (grads[${i}] - deltas), isQuery);`
      }`)
    }
    ${addWeighted("sumV", "scores", "gradContextToRight", "queryFirst", shape)}
    ${addWeighted("sumK", "grads", "qToRight", "queryFirst", shape)}
  }
  ${storeSums("sumK", "gradK", shape, (vector) => `${vector} * sizes.scale`)}
  ${storeSums("sumV", "gradV", shape, (vector) => vector)}`,
  }, shape);
}

/** Text: `expression` for I = 0, 1, 2, 3. */
function eachOf(expression: string): string {
  return [0, 1, 2, 3].map((i) => expression.replaceAll("I]", `${i}]`)).join(", ");
}

/** delta[head, column] = Σ_d gradContext · context, what softmax takes off: an invocation makes one. */
const deltaShader = writeShader({
  key: "attention_gradient_delta_f32",
  reads: { gradContext: "array<f32>", context: "array<f32>" },
  writes: { delta: "array<f32>" },
  sizes: { heads: "u32", headSize: "u32", columns: "u32" },
  main: `
  let i = group * ${workgroupSize}u + lane;
  if (i >= sizes.heads * sizes.columns) { return; }
  var sum = 0.0;
  for (var at = i * sizes.headSize; at < (i + 1u) * sizes.headSize; at++) {
    sum = fma(gradContext[at], context[at], sum);
  }
  delta[(i % sizes.heads) * sizes.columns + i / sizes.heads] = sum;`,
});

/** Gradients with respect to q, k and v. */
export const attentionGradientShaders = defineLowering({
  operation: attentionGradient,

  // As for attention: exp is exact to a few units in the last place.
  toleranceFactor: 4,

  scratchBytes({ attributes, outputTypes: [matrix] }) {
    return [4 * attributes.heads * matrix.shape[1]];
  },

  lower({ attributes, inputs, outputs, scratch: [delta], target }) {
    const matrix = outputs[0].type;
    const { heads, headSize, columns, dropout } = attentionSizes(attributes, matrix);
    const [gradContext, q, k, v, context, logSumExp, offsets, seed] = inputs.map((operand) =>
      operand && wholeRange(operand, "an operand of attentionGradient")
    );
    const [gradQ, gradK, gradV] = outputs.map((operand) =>
      wholeRange(operand, "a result of attentionGradient")
    );
    const deltaGroups = Math.ceil(heads * columns / workgroupSize);
    const shared = [gradContext, q, k, v, logSumExp, delta, offsets, dropout > 0 ? seed : undefined];
    const makeCall = target.isSoftware ? directCall : attentionCall;
    const call = (shader: Shader, ...results: typeof shared) =>
      makeCall(shader, [...shared, ...results], attributes, matrix, inputs[6]!.type, target);
    const [direct, tiles] = [directShape(attributes, matrix), tileShape(attributes, matrix)];
    return [
      callShader(
        deltaShader,
        [gradContext, context, delta],
        [heads, headSize, columns],
        deltaGroups,
        target,
      ),
      call(target.isSoftware ? directQueryShader(direct) : queryShader(tiles), gradQ),
      call(target.isSoftware ? directKeyShader(direct) : keyShader(tiles), gradK, gradV),
    ];
  },
});

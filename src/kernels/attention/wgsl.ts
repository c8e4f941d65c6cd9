/**
 * Multi-head attention on the GPU: a pass over the keys with a running maximum and sum, as in FlashAttention.
 * @module
 */
import { defineLowering, type Shader, wholeRange } from "../shader.ts";
import { attention } from "./operation.ts";
import { directCall, directForwardShader, directShape } from "./wgsl_direct.ts";
import { attentionCall, attentionShader, tileShape } from "./wgsl_frame.ts";
import {
  addWeighted,
  declareSums,
  eachRow,
  innerProduct,
  loadTile,
  scaleSums,
  storeSums,
  type TileShape,
  tileSide,
} from "./wgsl_tiles.ts";

/** Owns queries. `highest` and `total` are of the invocation's four rows; `total` is summed over its columns only until the end. */
function forwardShader(shape: TileShape, training: boolean): Shader {
  return attentionShader({
    name: training ? "attention_training" : "attention",
    reads: ["q", "k", "v"],
    writes: ["context"],
    writesRows: training ? ["logSumExp"] : [],
    declarations: loadTile("q", "left") + loadTile("k", "across") + loadTile("v", "right"),
    main: `
  // Not -∞: a difference of two of those would be NaN.
  var highest = vec4f(-0x1.fffffep127f);
  var total: vec4f;
  ${declareSums("sum", shape)}
  for (var keyFirst = begin; keyFirst < blocksEnd; keyFirst += ${tileSide}u) {
    ${innerProduct("scores", "qToLeft", "kAcross", "keyFirst")}
    let keys = keyFirst + 4u * column + four;
    let isKey = keys < vec4u(end);
    var best = highest;
    ${
      eachRow((i) => `
    scores[${i}] *= sizes.scale;
    let known${i} = select(vec4f(highest[${i}]), scores[${i}], isKey);
    best[${i}] = max(max(known${i}.x, known${i}.y), max(known${i}.z, known${i}.w));`)
    }
    parts[lane] = best;
    workgroupBarrier();
    best = highest;
    for (var i = 0u; i < 8u; i++) { best = max(best, parts[8u * row + i]); }
    let fading = exp(highest - best);
    highest = best;
    total *= fading;
    ${
      eachRow((i) => `
    scores[${i}] = select(vec4f(), exp(scores[${i}] - best[${i}]), isKey);
    total[${i}] += (scores[${i}].x + scores[${i}].y) + (scores[${i}].z + scores[${i}].w);
    ${shape.dropout ? `scores[${i}] *= keepFactors(vec4u(ownFirst + row + ${8 * i}u), keys - begin);` : ""}
    ${scaleSums("sum", i, `fading[${i}]`, shape)}`)
    }
    ${addWeighted("sum", "scores", "vToRight", "keyFirst", shape)}
  }
  workgroupBarrier();
  parts[lane] = total;
  workgroupBarrier();
  total = vec4f();
  for (var i = 0u; i < 8u; i++) { total += parts[8u * row + i]; }
  let scale = select(1.0 / total, vec4f(), isPadding);
  ${storeSums("sum", "context", shape, (vector, i) => `${vector} * scale[${i}]`)}
  ${
      training
        ? `if (column == 0u) {
    let logarithm = select(highest + log(total), vec4f(), isPadding);
    ${
          eachRow((i) =>
            `if (ownFirst + row + ${8 * i}u < end) { ` +
            `logSumExp[head * sizes.columns + ownFirst + row + ${8 * i}u] = logarithm[${i}]; }`
          )
        }
  }`
        : ""
    }`,
  }, shape);
}

/** context = dropout(softmax(q·k / √headSize)) · v, and the log-sum-exp when training. */
export const attentionShaders = defineLowering({
  operation: attention,

  // exp(x) of a GPU is exact to 3 + 2·|x| units in the last place, and x is a difference of scores.
  toleranceFactor: 4,

  lower({ attributes, inputs, outputs, target }) {
    const { training, dropout } = attributes;
    const matrix = outputs[0].type;
    const [q, k, v, offsets, seed] = inputs;
    const operands = [q, k, v, offsets, dropout > 0 ? seed : undefined, ...outputs];
    const ranges = operands.map((operand) => operand && wholeRange(operand, "an operand of attention"));
    if (target.isSoftware) {
      const shader = directForwardShader(directShape(attributes, matrix), training);
      return [directCall(shader, ranges, attributes, matrix, offsets!.type, target)];
    }
    const shader = forwardShader(tileShape(attributes, matrix), training);
    return [attentionCall(shader, ranges, attributes, matrix, offsets!.type, target)];
  },
});

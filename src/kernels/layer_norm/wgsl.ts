/**
 * Layer normalisation and its gradient on the GPU: a team of invocations per column, which holds the column in registers.
 * @module
 */
import { defineLowering, type Shader, wholeRange } from "../shader.ts";
import { callShader, featureVector, workgroupSize, writeShader } from "../wgsl_shader.ts";
import { teamFunction, teamLanes } from "../wgsl_team.ts";
import { f32Literal } from "../wgsl_math.ts";
import { columnSumCalls, type ColumnSums, columnSumScratchBytes } from "../sum_columns/wgsl.ts";
import { layerNormGradient, layerNormParameterGradient } from "./gradient.ts";
import { layerNorm } from "./operation.ts";

/** The text that both shaders begin with, and the means to write one line for each vector that a lane has. */
function columnText(features: number) {
  const vector = featureVector(features);
  const lanes = teamLanes(vector.count);
  const own = Array.from({ length: Math.ceil(vector.count / lanes) }, (_, index) => index);
  const isWhole = vector.count % lanes === 0;
  return {
    ...vector,
    lanes,
    perFeature: f32Literal(1 / features),
    total: (value: string) => vector.type === "vec4f" ? `dot(${value}, vec4f(1.0))` : value,
    each: (line: (index: number) => string) => own.map(line).join("\n  "),
    // Lanes beyond the last column, or the last feature, take part in the barriers and hold zeros.
    begin: `
  let column = group * ${workgroupSize / lanes}u + lane / ${lanes}u;
  let member = lane % ${lanes}u;
  let inside = column < sizes.columns;
  let begin = column * ${vector.count}u;
  ${
      own.map((index) => {
        const last = !isWhole && index === own.length - 1;
        return `let feature${index} = member + ${index * lanes}u;
  let at${index} = begin + feature${index};
  let has${index} = inside${last ? ` && feature${index} < ${vector.count}u` : ""};`;
      }).join("\n  ")
    }`,
  };
}

/** Columns that a workgroup does. */
function columnsPerGroup(features: number): number {
  return workgroupSize / teamLanes(featureVector(features).count);
}

function forwardShader(features: number, epsilon: number, residual: boolean, training: boolean): Shader {
  const { type, lanes, perFeature, total, each, begin } = columnText(features);
  const variant = `${residual ? "_residual" : ""}${training ? "_training" : ""}`;
  const array = `array<${type}>`;
  return writeShader({
    key: `layer_norm_${features}_epsilon${epsilon}${variant}`,
    reads: { x: array, residual: residual && array, gamma: array, beta: array },
    writes: { y: array, ...(training && { summed: array, statistics: "array<f32>" }) },
    sizes: { columns: "u32" },
    declarations: teamFunction("teamSum", lanes),
    main: `${begin}
  var sum = ${type}();
  ${
      each((i) =>
        `var value${i} = ${type}();
  if (has${i}) {
    value${i} = x[at${i}]${residual ? ` + residual[at${i}]` : ""};
    ${training ? `summed[at${i}] = value${i};` : ""}
    sum += value${i};
  }`
      )
    }
  let mean = teamSum(${total("sum")}, lane) * ${perFeature};
  var squares = ${type}();
  ${each((i) => `if (has${i}) { value${i} -= mean; squares += value${i} * value${i}; }`)}
  let variance = teamSum(${total("squares")}, lane) * ${perFeature};
  let inverseStd = 1.0 / sqrt(variance + ${f32Literal(epsilon)});
  ${
      each((i) =>
        `if (has${i}) { y[at${i}] = value${i} * inverseStd * gamma[feature${i}] + beta[feature${i}]; }`
      )
    }
  ${
      training
        ? `if (inside && member == 0u) {
    statistics[column] = mean;
    statistics[sizes.columns + column] = inverseStd;
  }`
        : ""
    }`,
  });
}

function gradientShader(features: number): Shader {
  const { type, lanes, perFeature, total, each, begin } = columnText(features);
  const array = `array<${type}>`;
  return writeShader({
    key: `layer_norm_gradient_${features}`,
    reads: { gradY: array, summed: array, statistics: "array<f32>", gamma: array },
    writes: { gradX: array },
    sizes: { columns: "u32" },
    declarations: teamFunction("teamSum", lanes, { type: "vec2f" }),
    main: `${begin}
  var mean = 0.0;
  var inverseStd = 0.0;
  if (inside) {
    mean = statistics[column];
    inverseStd = statistics[sizes.columns + column];
  }
  var sum = ${type}();
  var products = ${type}();
  ${
      each((i) =>
        `var scaled${i} = ${type}();
  var normalised${i} = ${type}();
  if (has${i}) {
    scaled${i} = gradY[at${i}] * gamma[feature${i}];
    normalised${i} = (summed[at${i}] - mean) * inverseStd;
    sum += scaled${i};
    products += scaled${i} * normalised${i};
  }`
      )
    }
  let means = teamSum(vec2f(${total("sum")}, ${total("products")}), lane) * ${perFeature};
  ${
      each((i) =>
        `if (has${i}) { gradX[at${i}] = (scaled${i} - means.x - normalised${i} * means.y) * inverseStd; }`
      )
    }`,
  });
}

/** y = (summed − mean) / std · gamma + beta per column, with summed = x + residual. */
export const layerNormShaders = defineLowering({
  operation: layerNorm,
  lower({ attributes: { epsilon, training }, inputs, outputs, target }) {
    const [features, columns] = outputs[0].type.shape;
    const shader = forwardShader(features, epsilon, inputs[1] !== undefined, training);
    const ranges = [...inputs, ...outputs].map((operand) => operand && wholeRange(operand, "layerNorm"));
    return [callShader(shader, ranges, [columns], Math.ceil(columns / columnsPerGroup(features)), target)];
  },
});

/** gradX = (g − mean(g) − n · mean(g · n)) / std per column, with n = (summed − mean) / std and g = gradY · gamma. */
export const layerNormGradientShaders = defineLowering({
  operation: layerNormGradient,
  lower({ inputs, outputs, target }) {
    const [features, columns] = outputs[0].type.shape;
    const ranges = [...inputs, ...outputs].map((operand) => wholeRange(operand!, "layerNormGradient"));
    const groups = Math.ceil(columns / columnsPerGroup(features));
    return [callShader(gradientShader(features), ranges, [columns], groups, target)];
  },
});

const parameterGradient: ColumnSums = {
  key: "layer_norm_parameter_gradient",
  reads: { gradY: "array<f32>", summed: "array<f32>", statistics: "array<f32>" },
  terms: ["gradY[at] * (summed[at] - statistics[column]) * statistics[sizes.columns + column]", "gradY[at]"],
};

/** gradGamma = Σ over columns of gradY · n, gradBeta = Σ over columns of gradY. */
export const layerNormParameterGradientShaders = defineLowering({
  operation: layerNormParameterGradient,
  scratchBytes({ inputTypes: [gradY] }) {
    const [features, columns] = gradY!.shape;
    const sums = columnSumScratchBytes(features, columns);
    return [...sums, ...sums];
  },
  lower({ inputs, outputs, scratch, target }) {
    const [features, columns] = inputs[0]!.type.shape;
    const wholes = (operands: typeof inputs) =>
      operands.map((operand) => wholeRange(operand!, "layerNormParameterGradient"));
    const [sources, results] = [wholes(inputs), wholes(outputs)];
    return columnSumCalls(parameterGradient, { sources, results, scratch, features, columns, target });
  },
});

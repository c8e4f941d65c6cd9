/**
 * Softmax, cross-entropy and distillation with their gradient on the GPU: a team of invocations per column, which reads it
 * three times: for the largest logits, for the sums of exponentials, for the losses and gradients.
 * @module
 */
import { defineLowering, type Shader, wholeRange } from "../shader.ts";
import { callShader, workgroupSize, writeShader } from "../wgsl_shader.ts";
import { teamFunction, teamLanes } from "../wgsl_team.ts";
import { softmaxCrossEntropy } from "./operation.ts";
import { type LossVariant, settled, variantKey, variantOf } from "./variant.ts";
import { lossCalls, totalsBytes } from "./wgsl_labelled_mean.ts";

/** In the place of −∞, which WGSL has no literal for. */
const lowest = "-3.4028234e38";

/** The largest logit of a column. */
const findHighest = (highest: string, matrix: string) => `
  var ${highest} = ${lowest};
  for (var row = member; row < labelledRows; row += lanes) { ${highest} = max(${highest}, ${matrix}[begin + row]); }
  ${highest} = teamMaximum(${highest}, lane);`;

const taskText = `
      let goal = (select(0.0, sizes.labelShare, row == u32(label)) + sizes.classShare) * weightOf(row);
      // A class ruled out has −∞, which must not meet a goal of 0.
      if (goal != 0.0) { columnLoss -= taskScale * goal * (score - logSum); }
      gradient += taskScale * (mass * exp(score) / sums.x - goal);`;

const teacherText = `
      let studentScore = score * sizes.inverseTemperature;
      let teacherScore = (teacherLogits[begin + row] - teacherHighest) * sizes.inverseTemperature;
      let chance = exp(teacherScore) / sums.z;
      if (chance != 0.0) {
        let divergence = (teacherScore - teacherLogSum) - (studentScore - studentLogSum);
        columnLoss += sizes.hardness * sizes.temperature * sizes.temperature * chance * divergence;
      }
      gradient += sizes.hardness * sizes.temperature * (exp(studentScore) / sums.y - chance);`;

function columnsShader(variant: LossVariant, lanes: number): Shader {
  const { labelled, weighted, taught } = variant;
  return writeShader({
    key: `${variantKey(variant)}_lanes${lanes}`,
    reads: {
      logits: "array<f32>",
      labels: "array<i32>",
      totals: "array<f32>",
      classWeights: weighted && "array<f32>",
      teacherLogits: taught && "array<f32>",
    },
    writes: { gradLogits: "array<f32>", columnLosses: "array<f32>" },
    sizes: {
      classes: "u32",
      columns: "u32",
      taskShare: "f32",
      hardness: "f32",
      labelShare: "f32",
      classShare: "f32",
      temperature: "f32",
      inverseTemperature: "f32",
    },
    declarations: `
const lanes = ${lanes}u;
fn weightOf(row: u32) -> f32 { return ${weighted ? "classWeights[row]" : "1.0"}; }
${teamFunction("teamMaximum", lanes, { combine: (a, b) => `max(${a}, ${b})` })}
${teamFunction("teamSum", lanes, { type: "vec4f" })}`,
    main: `
  let column = group * ${workgroupSize / lanes}u + lane / lanes;
  let member = lane % lanes;
  let inside = column < sizes.columns;
  var label = -1;
  if (inside) { label = labels[column]; }
  let begin = column * sizes.classes;
  // Columns without a label are not read: they may hold anything.
  let labelledRows = select(0u, sizes.classes, label >= 0);
${findHighest("highest", "logits")}${taught ? findHighest("teacherHighest", "teacherLogits") : ""}
  // Of the exponentials of the logits, the same divided by T, the teacher's divided by T; of the weights.
  var sums = vec4f();
  for (var row = member; row < labelledRows; row += lanes) {
    let score = logits[begin + row] - highest;
    ${labelled ? "sums += vec4f(exp(score), 0.0, 0.0, weightOf(row));" : ""}
    ${
      taught
        ? `sums.y += exp(score * sizes.inverseTemperature);
    sums.z += exp((teacherLogits[begin + row] - teacherHighest) * sizes.inverseTemperature);`
        : ""
    }
  }
  sums = teamSum(sums, lane);
  ${labelled ? "let logSum = log(sums.x);" : ""}
  ${taught ? "let studentLogSum = log(sums.y);\n  let teacherLogSum = log(sums.z);" : ""}
  ${
      labelled
        ? `let taskScale = sizes.taskShare * totals[0] / totals[1];
  var mass = sizes.classShare * sums.w;
  if (label >= 0) { mass += sizes.labelShare * weightOf(u32(label)); }`
        : ""
    }
  var columnLoss = 0.0;
  for (var row = member; inside && row < sizes.classes; row += lanes) {
    var gradient = 0.0;
    if (label >= 0) {
      let score = logits[begin + row] - highest;${labelled ? taskText : ""}${taught ? teacherText : ""}
    }
    gradLogits[begin + row] = gradient / totals[0];
  }
  columnLoss = teamSum(vec4f(columnLoss, 0.0, 0.0, 0.0), lane).x;
  if (inside && member == 0u) { columnLosses[column] = columnLoss; }`,
  });
}

/** The mean loss, the gradient of the logits, the loss of each column; `reference.ts` has the formula. */
export const softmaxCrossEntropyShaders = defineLowering({
  operation: softmaxCrossEntropy,
  scratchBytes: () => [totalsBytes],
  lower({ attributes, inputs, outputs, scratch: [totals], target }) {
    const [classes, columns] = outputs[1].type.shape;
    const { labelSmoothing, hardness, temperature } = settled(attributes);
    const variant = variantOf(attributes, { tile: 1, hasWeights: inputs[2] !== undefined });
    const lanes = teamLanes(classes);
    const [loss, gradLogits, columnLosses] = outputs.map((output) =>
      wholeRange(output, "softmaxCrossEntropy")
    );
    const [logits, labels, weights, teacher] = inputs.map((input) =>
      input && wholeRange(input, "softmaxCrossEntropy")
    );
    const classWeights = variant.weighted ? weights : undefined;
    const teacherLogits = variant.taught ? teacher : undefined;
    const columnsCall = callShader(
      columnsShader(variant, lanes),
      [logits, labels, totals, classWeights, teacherLogits, gradLogits, columnLosses],
      [
        classes,
        columns,
        { f32: 1 - hardness },
        { f32: hardness },
        { f32: 1 - labelSmoothing },
        { f32: labelSmoothing / classes },
        { f32: temperature },
        { f32: 1 / temperature },
      ],
      Math.ceil(columns / (workgroupSize / lanes)),
      target,
    );
    return lossCalls({
      labels: labels!,
      classWeights,
      totals,
      columnsCall,
      columnLosses,
      loss,
      columns,
      target,
    });
  },
});

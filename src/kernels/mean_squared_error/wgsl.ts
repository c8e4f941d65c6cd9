/**
 * Mean squared error with its gradient on the GPU: a team of invocations per column.
 * @module
 */
import { defineLowering, type Shader, wholeRange } from "../shader.ts";
import { lossCalls, totalsBytes } from "../softmax_cross_entropy/wgsl_labelled_mean.ts";
import { callShader, workgroupSize, writeShader } from "../wgsl_shader.ts";
import { teamFunction, teamLanes } from "../wgsl_team.ts";
import { meanSquaredError } from "./operation.ts";

/** Whose predictions count: a share of 0 asks nobody. */
interface ErrorVariant {
  readonly targeted: boolean;
  readonly taught: boolean;
}

function columnsShader({ targeted, taught }: ErrorVariant, lanes: number): Shader {
  const from = (matrix: string, share: string) => `
      {
        let error = predictions[at] - ${matrix}[at];
        columnLoss += sizes.${share} * error * error;
        gradient += sizes.${share} * error;
      }`;
  return writeShader({
    key: `mean_squared_error${targeted ? "_targets" : ""}${taught ? "_teacher" : ""}_lanes${lanes}`,
    reads: {
      predictions: "array<f32>",
      labels: "array<i32>",
      totals: "array<f32>",
      targets: targeted && "array<f32>",
      teacher: taught && "array<f32>",
    },
    writes: { gradPredictions: "array<f32>", columnLosses: "array<f32>" },
    sizes: { outputs: "u32", columns: "u32", targetShare: "f32", teacherShare: "f32" },
    declarations: `
const lanes = ${lanes}u;
${teamFunction("teamSum", lanes)}`,
    main: `
  let column = group * ${workgroupSize / lanes}u + lane / lanes;
  let member = lane % lanes;
  let inside = column < sizes.columns;
  var counts = false;
  if (inside) { counts = labels[column] >= 0; }
  var columnLoss = 0.0;
  for (var row = member; inside && row < sizes.outputs; row += lanes) {
    let at = column * sizes.outputs + row;
    var gradient = 0.0;
    if (counts) {${targeted ? from("targets", "targetShare") : ""}${
      taught ? from("teacher", "teacherShare") : ""
    }
    }
    gradPredictions[at] = 2.0 * gradient / totals[0];
  }
  columnLoss = teamSum(columnLoss, lane);
  if (inside && member == 0u) { columnLosses[column] = columnLoss; }`,
  });
}

/** The mean error over the columns that count, the gradient of the predictions, the loss of each column. */
export const meanSquaredErrorShaders = defineLowering({
  operation: meanSquaredError,
  scratchBytes: () => [totalsBytes],
  lower({ attributes: { hardness = 0 }, inputs, outputs, scratch: [totals], target }) {
    const [outputCount, columns] = outputs[1].type.shape;
    const variant = { targeted: hardness < 1, taught: hardness > 0 };
    const lanes = teamLanes(outputCount);
    const [loss, gradPredictions, columnLosses] = outputs.map((output) =>
      wholeRange(output, "meanSquaredError")
    );
    const [predictions, labels, targets, teacher] = inputs.map((input) =>
      input && wholeRange(input, "meanSquaredError")
    );
    const columnsCall = callShader(
      columnsShader(variant, lanes),
      [
        predictions,
        labels,
        totals,
        variant.targeted ? targets : undefined,
        variant.taught ? teacher : undefined,
        gradPredictions,
        columnLosses,
      ],
      [outputCount, columns, { f32: (1 - hardness) / outputCount }, { f32: hardness / outputCount }],
      Math.ceil(columns / (workgroupSize / lanes)),
      target,
    );
    return lossCalls({
      labels: labels!,
      classWeights: undefined,
      totals,
      columnsCall,
      columnLosses,
      loss,
      columns,
      target,
    });
  },
});

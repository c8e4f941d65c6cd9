/**
 * What the losses share on the GPU: how many columns count, and the mean over these.
 *
 * One workgroup does either: it adds in an order that the number of columns fixes, and there is little to add.
 * @module
 */
import type { BufferRange, ShaderCall, ShaderTarget } from "../shader.ts";
import { callShader, workgroupSize, writeShader } from "../wgsl_shader.ts";
import { teamFunction } from "../wgsl_team.ts";

/** Bytes of `totals`. */
export const totalsBytes = 8;

/**
 * totals[0] = how many columns count, totals[1] = the sum of their labels' weights. Both are 1 instead of 0: then what is
 * divided by them is 0.
 */
const totalsShader = (weighted: boolean) =>
  writeShader({
    key: `label_totals${weighted ? "_weighted" : ""}`,
    reads: { labels: "array<i32>", classWeights: weighted && "array<f32>" },
    writes: { totals: "array<f32>" },
    sizes: { columns: "u32" },
    declarations: teamFunction("teamSum", workgroupSize, { type: "vec2f" }),
    main: `
  var own = vec2f();
  for (var column = lane; column < sizes.columns; column += ${workgroupSize}u) {
    let label = labels[column];
    if (label >= 0) { own += vec2f(1.0, ${weighted ? "classWeights[label]" : "1.0"}); }
  }
  let all = teamSum(own, lane);
  if (lane == 0u) {
    totals[0] = max(all.x, 1.0);
    totals[1] = select(all.y, 1.0, all.y == 0.0);
  }`,
  });

const meanShader = writeShader({
  key: "labelled_mean",
  reads: { columnLosses: "array<f32>", totals: "array<f32>" },
  writes: { mean: "array<f32>" },
  sizes: { columns: "u32" },
  declarations: teamFunction("teamSum", workgroupSize),
  main: `
  var own = 0.0;
  for (var column = lane; column < sizes.columns; column += ${workgroupSize}u) { own += columnLosses[column]; }
  let sum = teamSum(own, lane);
  if (lane == 0u) { mean[0] = sum / totals[0]; }`,
});

/** `columnsCall`, which reads the totals and writes the losses of columns, between what it needs and the mean it serves. */
export function lossCalls(
  { labels, classWeights, totals, columnsCall, columnLosses, loss, columns, target }: {
    /** i32 [columns], −1 = does not count */
    readonly labels: BufferRange;
    /** f32 [classes], where classes have weights */
    readonly classWeights: BufferRange | undefined;
    /** Scratch of `totalsBytes`. */
    readonly totals: BufferRange;
    readonly columnsCall: ShaderCall;
    /** f32 [columns], 0 where there is no label */
    readonly columnLosses: BufferRange;
    /** f32 [1] */
    readonly loss: BufferRange;
    readonly columns: number;
    readonly target: ShaderTarget;
  },
): ShaderCall[] {
  const weighted = classWeights !== undefined;
  return [
    callShader(totalsShader(weighted), [labels, classWeights, totals], [columns], 1, target),
    columnsCall,
    callShader(meanShader, [columnLosses, totals, loss], [columns], 1, target),
  ];
}

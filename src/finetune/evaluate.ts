/**
 * How good a model in training is.
 * @module
 */
import { type BatchLimit, type EncodedExample, evaluationBatches } from "../data/batches.ts";
import { type EncodedSet, exampleAt, lengthsOf } from "../data/encoded_set.ts";
import { ConfusionMatrix, type Evaluation, predictedClass } from "../evaluate/metrics.ts";
import type { Trainer } from "./trainer.ts";

/** Loss and metrics on a labelled set. */
export async function evaluateOn(
  trainer: Trainer<EncodedExample>,
  set: EncodedSet,
  limit: BatchLimit,
  classes: number,
): Promise<Evaluation> {
  const confusion = new ConfusionMatrix(classes);
  let lossSum = 0;
  for (const indices of evaluationBatches(lengthsOf(set), limit)) {
    const batch = Array.from(indices, (index) => exampleAt(set, index));
    const { loss, outputs } = await trainer.evaluate(batch);
    const { values, stride } = outputs.get("logits")!;
    lossSum += loss * batch.length;
    batch.forEach(({ label }, column) =>
      confusion.add(label, predictedClass(values, stride, column, classes))
    );
  }
  return confusion.evaluation(lossSum);
}

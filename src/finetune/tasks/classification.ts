/**
 * Training a sequence classifier: BERT, a pooled first token, cross-entropy.
 * @module
 */
import { bertInputs, buildBert, lossInputs } from "../../../models/bert.ts";
import type { BertConfig } from "../../../models/config.ts";
import { type BatchLimit, type EncodedExample, evaluationBatches, packBatch } from "../../data/batches.ts";
import type { ExampleSet } from "../../data/example_set.ts";
import { ConfusionMatrix, type Evaluation, predictedClass } from "../../evaluate/metrics.ts";
import { initialiseParameter } from "../parameters.ts";
import type { Teaching } from "../teaching.ts";
import type { Trainer } from "../trainer.ts";
import {
  indexView,
  type InputArray,
  type InputViews,
  numberView,
  type TrainingModel,
} from "../training_model.ts";

/** What a classifier's loss is to be; evaluations have the plain mean cross-entropy whatever it is. */
export interface ClassifierLossOptions {
  /** Share of a label that all classes share; default 0. */
  readonly labelSmoothing?: number;
  /** Weight of each class; absent: all alike. */
  readonly classWeights?: readonly number[];
  /** Lessons of a teacher, for examples with an `index`. */
  readonly teaching?: TeacherInput;
}

/** BERT with a classification head as the trainer takes it. */
export function classifier(
  config: BertConfig,
  { labelSmoothing, classWeights, teaching }: ClassifierLossOptions = {},
): TrainingModel<EncodedExample> {
  const steady = { ...config, hiddenDropout: 0, attentionDropout: 0, classifierDropout: 0 };
  return {
    ...bertBatches,
    get variant() {
      return variantOf(teaching);
    },
    build(graph, { dropout, ...request }) {
      const classifierLoss = request.mode === "evaluate"
        ? undefined
        : { labelSmoothing, classWeights: classWeights !== undefined, lesson: teaching?.lessons.lesson };
      const { hidden, loss } = buildBert(graph, dropout ? config : steady, { ...request, classifierLoss });
      return { loss: loss!, checkpoints: hidden.slice(0, -1) };
    },
    inputs: (size) => ({
      ...bertBatches.inputs(size),
      ...(classWeights ? { [lossInputs.classWeights]: { dtype: "f32", length: classWeights.length } } : {}),
      ...teacherInputs(teaching, config.labels.length * size.sequences),
    }),
    fill(batch, views, key, mode) {
      bertBatches.fill(batch, views, key, mode);
      if (classWeights) numberView(views, lossInputs.classWeights).set(classWeights);
      if (teaching && mode === "train") fillTeacher(teaching, batch, views);
    },
    initialise: (slot, target, seed) =>
      initialiseParameter(slot, target, {
        range: config.initializerRange,
        seed,
        padTokenId: config.padTokenId,
      }),
  };
}

/** Loss and metrics of a classifier on a set, all of its classes in the model's order. */
export async function evaluateClassifier(
  trainer: Trainer<EncodedExample>,
  set: ExampleSet<EncodedExample>,
  limit: BatchLimit,
  classes: number,
): Promise<Evaluation> {
  const confusion = new ConfusionMatrix(classes);
  let lossSum = 0;
  for (const indices of evaluationBatches(set.lengths, limit)) {
    const batch = Array.from(indices, set.at);
    const { loss, outputs } = await trainer.evaluate(batch);
    const { values, stride } = outputs.get("logits")!;
    lossSum += loss * batch.length;
    batch.forEach(({ label }, column) =>
      confusion.add(label, predictedClass(values, stride, column, classes))
    );
  }
  return confusion.evaluation(lossSum);
}

/** Lessons, and the tile of the machine on which they are learned (`usualTile`). */
export interface TeacherInput {
  readonly lessons: Teaching;
  readonly tile: number;
}

/** Names the lesson that is on. */
export function variantOf(teaching: TeacherInput | undefined): string {
  const lesson = teaching?.lessons.lesson;
  return lesson ? `hardness ${lesson.hardness} temperature ${lesson.temperature}` : "";
}

/** The array for a teacher's logits, where there is a teacher. */
export function teacherInputs(
  teaching: TeacherInput | undefined,
  length: number,
): Readonly<Record<string, InputArray>> {
  return teaching ? { [lossInputs.teacherLogits]: { dtype: "f32", length } } : {};
}

/** Writes a teacher's logits for a batch; nothing while no lesson is on. */
export function fillTeacher(
  { lessons, tile }: TeacherInput,
  batch: readonly EncodedExample[],
  views: InputViews,
): void {
  if (!lessons.lesson) return;
  const numbers = batch.map(({ index }) => index!);
  lessons.answers.write(numbers, numberView(views, lossInputs.teacherLogits), tile);
}

/** Sequences of tokens packed end to end, each with a label. */
export const bertBatches: Pick<
  TrainingModel<EncodedExample>,
  "inputs" | "sizeOf" | "fill" | "lookup"
> = {
  inputs({ columns, sequences }) {
    const list = (length: number): InputArray => ({ dtype: "i32", length });
    return {
      [bertInputs.tokenIds]: list(columns),
      [bertInputs.positionIds]: list(columns),
      [bertInputs.typeIds]: list(columns),
      [bertInputs.offsets]: list(sequences + 1),
      [bertInputs.firstTokens]: list(sequences),
      [bertInputs.labels]: list(sequences),
    };
  },
  sizeOf: (batch) => ({
    columns: batch.reduce((sum, { ids }) => sum + ids.length, 0),
    sequences: batch.length,
  }),
  fill(batch, views) {
    packBatch(batch, {
      tokenIds: indexView(views, bertInputs.tokenIds),
      positionIds: indexView(views, bertInputs.positionIds),
      typeIds: indexView(views, bertInputs.typeIds),
      offsets: indexView(views, bertInputs.offsets),
      firstTokens: indexView(views, bertInputs.firstTokens),
      labels: indexView(views, bertInputs.labels),
    });
  },
  lookup: { table: "bert.embeddings.word_embeddings.weight", ids: bertInputs.tokenIds },
};

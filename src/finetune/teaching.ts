/**
 * Learning a teacher's answers: whose, when, and how much they count. The loop moves it on from step to step, the model's
 * loss reads what is on at present.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { TeacherLogits } from "./teacher.ts";
import type { DistillationPhase } from "./timeline.ts";

/** What the loss needs to know at present. */
export interface Lesson {
  /** Share of the loss that is about the teacher's answers, in [0, 1]. */
  readonly hardness: number;
  /** What logits are divided by. */
  readonly temperature: number;
}

/** The teacher that is the model itself, just before it is pruned. */
export const denseTeacher = "dense";

/** Lessons over a run, and who gives them. */
export interface TeachingPlan {
  readonly phases: readonly DistillationPhase[];
  /** Answers that are there already: of a folder, or of the sitting before. */
  readonly answers?: TeacherLogits;
  /** Asks the model in training as it is now, and keeps its answers with the state of the run. */
  askDense(): Promise<TeacherLogits>;
}

/** The lessons of a run. A model is built with it; what they are is said by `prepare`, before the first step. */
export class Teaching {
  #plan: TeachingPlan | undefined;
  #answers: TeacherLogits | undefined;
  #lesson: Lesson | undefined;

  /** Says what the lessons are. */
  prepare(plan: TeachingPlan): void {
    this.#plan = plan;
    this.#answers = plan.answers;
  }

  /** What is on; undefined: labels alone count. */
  get lesson(): Lesson | undefined {
    return this.#lesson;
  }

  /** The teacher's answers. Throws before there are any. */
  get answers(): TeacherLogits {
    if (!this.#answers) throw new Error("Cannot learn from a teacher that has not answered");
    return this.#answers;
  }

  /** To be awaited before masks change: the last moment at which the dense model can be asked. */
  async beforePruning(): Promise<void> {
    this.#answers ??= await this.#plan?.askDense();
  }

  /** To be called before a step: what is on from now. Nobody is learned from who has not answered yet. */
  begin(step: number): void {
    const phase = this.#plan?.phases.find(({ begin, end }) => begin <= step && step < end);
    this.#lesson = phase && this.#answers && phase.hardness > 0 ? phase : undefined;
  }
}

/** The one teacher of all phases; undefined where there is none. Throws `InputError` for two of them. */
export function teacherOf(phases: readonly DistillationPhase[]): string | undefined {
  const [first, second] = new Set(phases.map(({ teacher }) => teacher));
  if (second === undefined) return first;
  throw new InputError(`the run has the teachers ${first} and ${second}: wanted one`);
}

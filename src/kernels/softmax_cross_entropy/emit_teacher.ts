/**
 * The divergence of a vector of columns from a teacher's, and what its gradient is made of.
 * @module
 */
import { emitExp } from "../emit_math.ts";
import type { ColumnVector } from "./column_vector.ts";
import { emitLog } from "./emit_log.ts";

/** h · T² · KL(teacher ‖ student) of each column, and the factors of the two softmaxes in the gradient. */
export function emitTeacher(at: ColumnVector): void {
  const { vm, args } = at;
  const [student, teacher, exponential, zero] = [vm.vector(), vm.vector(), vm.vector(), at.constant(0)];
  const [studentSum, teacherSum, divergence] = [at.constant(0), at.constant(0), at.constant(0)];
  const [highest, teacherHighest] = [vm.vector(), vm.vector()];
  at.load(highest, "highest");
  at.load(teacherHighest, "teacherHighest");
  const inverse = args.float("inverseTemperature");
  at.forEachClass(["logits", "teacherLogits"], ([studentSource, teacherSource]) => {
    at.loadScaled(student, studentSource, highest, inverse);
    at.loadScaled(teacher, teacherSource, teacherHighest, inverse);
    emitExp(vm, exponential, teacher);
    vm.add(teacherSum, teacherSum, exponential);
    vm.subtract(teacher, teacher, student);
    vm.multiply(teacher, teacher, exponential);
    // A class that the teacher rules out says nothing, whatever the student's logit.
    vm.selectLess(teacher, zero, exponential, teacher, zero);
    vm.add(divergence, divergence, teacher);
    emitExp(vm, student, student);
    vm.add(studentSum, studentSum, student);
  });
  vm.free(highest, teacherHighest, zero, inverse);
  // Σ p_t (t − s) − log Σ exp t + log Σ exp s
  vm.divide(divergence, divergence, teacherSum);
  emitLog(vm, student, studentSum);
  vm.add(divergence, divergence, student);
  emitLog(vm, student, teacherSum);
  vm.subtract(divergence, divergence, student);
  const [factor, temperature] = [args.float("teacherShare"), args.float("temperature")];
  vm.multiply(factor, factor, temperature);
  vm.multiply(divergence, divergence, factor);
  vm.multiply(divergence, divergence, temperature);
  if (at.variant.labelled) {
    const losses = at.list("columnLosses");
    vm.load(student, losses, 0);
    vm.add(divergence, divergence, student);
    vm.free(losses);
  }
  const label = at.label();
  at.storeLoss(divergence, label);
  at.multiplyBy(factor, "inverseCount");
  vm.divide(studentSum, factor, studentSum);
  vm.divide(teacherSum, factor, teacherSum);
  at.store("studentFactor", studentSum);
  at.store("teacherFactor", teacherSum);
  vm.free(student, teacher, exponential, studentSum, teacherSum, divergence, temperature, factor, label);
}

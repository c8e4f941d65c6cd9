/**
 * The vector of columns that the loss kernel is at: its matrices, its labels, and its frame.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import type { ArgumentReader } from "../kernel.ts";
import { labelArguments } from "./labelled_mean.ts";
import type { LossVariant } from "./variant.ts";

/** Arguments of the loss kernel. Lists and matrices begin with the call's first column. */
export const lossArguments = {
  ...labelArguments,
  logits: "pointer",
  gradLogits: "pointer",
  /** 0 without a teacher. */
  teacherLogits: "pointer",
  labels: "pointer",
  columnLosses: "pointer",
  /** f32 [classes], 0 where every class weighs 1. */
  classWeights: "pointer",
  /** `frameBytes` of the worker's own. */
  frame: "pointer",
  classes: "integer",
  columns: "integer",
  /** 1 − h and h. */
  taskShare: "float",
  teacherShare: "float",
  /** 1 − ε and ε / classes. */
  labelShare: "float",
  classShare: "float",
  temperature: "float",
  inverseTemperature: "float",
} as const;

/** Reads them. */
export type LossArguments = ArgumentReader<typeof lossArguments>;

/** Numbers of each column of the vector at work, and two of all columns, by their place in the frame. */
const frameSlots = [
  "inverseCount",
  "taskScale",
  "highest",
  "teacherHighest",
  "taskFactor",
  "labelMass",
  "classMass",
  "studentFactor",
  "teacherFactor",
] as const;

/** A place in the frame. */
export type FrameSlot = (typeof frameSlots)[number];

/** Scratch memory that a call needs. */
export const frameBytes = (lanes: number): number => frameSlots.length * lanes * 4;

/** A matrix [classes, columns]. */
export type Matrix = "logits" | "gradLogits" | "teacherLogits";

/** Emits reads and writes of the vector of columns at work. Registers that it gives are the caller's to free. */
export class ColumnVector {
  /** Bytes from the first column of the call to the vector at work: in the matrices and in lists. */
  readonly #matrixOffset: Integer;
  readonly #listOffset: Integer;

  constructor(
    readonly vm: VectorMachine,
    readonly args: LossArguments,
    readonly variant: LossVariant,
  ) {
    this.#matrixOffset = vm.integer();
    this.#listOffset = vm.integer();
  }

  /** Runs the body for each vector of the call's columns. */
  forEach(body: () => void): void {
    const vm = this.vm;
    const [columns, tileStart, inTile] = [this.args.integer("columns"), vm.integer(), vm.integer()];
    vm.setInteger(this.#matrixOffset, 0);
    vm.setInteger(this.#listOffset, 0);
    vm.forRange(tileStart, 0, columns, this.variant.tile, () => {
      vm.forRange(inTile, 0, this.variant.tile, vm.lanes, () => {
        body();
        vm.addInteger(this.#matrixOffset, this.#matrixOffset, vm.lanes * 4);
        vm.addInteger(this.#listOffset, this.#listOffset, vm.lanes * 4);
      });
      // From the first row's next tile to the first row of the next tile.
      const rest = this.args.integer("classes");
      vm.subtractInteger(rest, rest, 1);
      vm.multiplyInteger(rest, rest, this.variant.tile * 4);
      vm.addInteger(this.#matrixOffset, this.#matrixOffset, rest);
      vm.free(rest);
    });
    vm.free(columns, tileStart, inTile);
  }

  /** Runs the body for each class, with the addresses of its vector in the matrices. */
  forEachClass(matrices: readonly Matrix[], body: (addresses: readonly Integer[]) => void): void {
    const vm = this.vm;
    const addresses = matrices.map((name) => {
      const address = this.args.pointer(name);
      vm.addInteger(address, address, this.#matrixOffset);
      return address;
    });
    const classes = this.args.integer("classes");
    vm.repeat(classes, () => {
      body(addresses);
      for (const address of addresses) vm.addInteger(address, address, this.variant.tile * 4);
    });
    vm.free(classes, ...addresses);
  }

  /** Writes the columns' losses: 0 where there is no label. Changes `loss`. */
  storeLoss(loss: Vector, label: Vector): void {
    const zero = this.vm.vector();
    this.vm.constantF32(zero, 0);
    const losses = this.list("columnLosses");
    this.vm.selectLess(loss, label, zero, zero, loss);
    this.vm.store(losses, 0, loss);
    this.vm.free(zero, losses);
  }

  /** The labels as f32. */
  label(): Vector {
    const [label, labels] = [this.vm.vector(), this.list("labels")];
    this.vm.load(label, labels, 0);
    this.vm.i32ToF32(label, label);
    this.vm.free(labels);
    return label;
  }

  /** The address of the list's part of these columns. */
  list(name: "labels" | "columnLosses"): Integer {
    const address = this.args.pointer(name);
    this.vm.addInteger(address, address, this.#listOffset);
    return address;
  }

  /** Keeps a vector in the frame. */
  store(slot: FrameSlot, value: Vector): void {
    const frame = this.args.pointer("frame");
    this.vm.store(frame, frameSlots.indexOf(slot) * this.vm.lanes * 4, value);
    this.vm.free(frame);
  }

  /** d = what the frame keeps there. */
  load(d: Vector, slot: FrameSlot): void {
    const frame = this.args.pointer("frame");
    this.vm.load(d, frame, frameSlots.indexOf(slot) * this.vm.lanes * 4);
    this.vm.free(frame);
  }

  /** d = d · what the frame keeps there. */
  multiplyBy(d: Vector, slot: FrameSlot): void {
    const factor = this.vm.vector();
    this.load(factor, slot);
    this.vm.multiply(d, d, factor);
    this.vm.free(factor);
  }

  /** x = (source − highest) / T */
  loadScaled(x: Vector, source: Integer, highest: Vector, inverse: Vector): void {
    this.vm.load(x, source, 0);
    this.vm.subtract(x, x, highest);
    this.vm.multiply(x, x, inverse);
  }

  /** A constant in a register. */
  constant(value: number): Vector {
    const register = this.vm.vector();
    this.vm.constantF32(register, value);
    return register;
  }

  /** Gives back the registers that were held all the time. */
  free(): void {
    this.vm.free(this.#matrixOffset, this.#listOffset);
  }
}

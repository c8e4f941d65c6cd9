/**
 * Which device trains, and why.
 * @module
 */
import { InputError, UnsupportedError } from "../core/errors.ts";

/** The chosen device with the reason, for the first line of a run. */
export interface ChosenDevice {
  readonly name: "cpu";
  readonly reason: string;
}

/** Chooses the device. Throws `InputError` for an unknown name, `UnsupportedError` for one this version cannot use. */
export function chooseDevice(wanted: string): ChosenDevice {
  switch (wanted) {
    case "cpu":
      return { name: "cpu", reason: "as asked" };
    case "auto":
      return { name: "cpu", reason: "auto: this version trains on the CPU only" };
    case "webgpu":
      throw new UnsupportedError("--device webgpu is not available: this version trains on the CPU only");
    default:
      throw new InputError(`--device is ${wanted}: wanted auto, cpu or webgpu`);
  }
}

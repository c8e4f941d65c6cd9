/**
 * The flags of `gpu_check.ts`.
 * @module
 */
import { parseArgs } from "node:util";
import { errorMessage, InputError } from "../../src/core/errors.ts";
import type { GpuProvider } from "../../src/webgpu/adapter.ts";

/** What the check consists of, in this order. */
export const partNames = ["kernels", "parity", "peaks", "matmul", "train"] as const;

/** One of them. */
export type PartName = typeof partNames[number];

/** What was asked for. */
export interface GpuCheckOptions {
  /** Tiny sizes, which show that everything runs and no more. */
  readonly quick: boolean;
  /** Where the result goes. */
  readonly json: string;
  /** Whether a CPU may play the GPU. */
  readonly allowSoftware: boolean;
  /** Whose WebGPU all parts but the tests use; absent: Deno's. */
  readonly provider?: GpuProvider;
  /** What steps are timed in; absent: all that the GPU has. */
  readonly precision?: string;
  readonly parts: readonly PartName[];
  /** Deno's configuration for the processes of the tests; absent: the project's. */
  readonly config?: string;
  readonly help: boolean;
}

/** The text of `--help`. */
export const usage = `deno run -A bench/gpu_check.ts [flags]
  --parts <list>     of ${partNames.join(",")} (default: all)
  --quick            tiny sizes: whether it runs, not how fast
  --json <file>      where the result goes (default: runs/gpu_check.json)
  --allow-software   also where a CPU plays the GPU
  --provider <name>  whose WebGPU all parts but kernels use: system (Deno's; default) or dawn (Chrome's)
  --precision <name> of the steps of train: fp32 or fp16 (default: all that the GPU has)
  --config <file>    Deno's configuration for the tests' processes (default: the project's)
  --help             this text`;

/** Throws `InputError` for what is no flag. */
export function parseOptions(args: readonly string[]): GpuCheckOptions {
  const values = parseValues(args);
  const parts: string[] = values.parts?.split(",").map((part) => part.trim()) ?? [...partNames];
  const stranger = parts.find((part) => !partNames.some((name) => name === part));
  if (stranger !== undefined) {
    throw new InputError(`--parts has "${stranger}": wanted some of ${partNames.join(",")}`);
  }
  const { provider, precision } = values;
  if (provider !== undefined && provider !== "system" && provider !== "dawn") {
    throw new InputError(`--provider is ${provider}: wanted system or dawn`);
  }
  // Shares of peak want the peak.
  if (parts.includes("matmul") || parts.includes("train")) parts.push("peaks");
  return {
    quick: values.quick ?? false,
    json: values.json ?? "runs/gpu_check.json",
    allowSoftware: values["allow-software"] ?? false,
    parts: partNames.filter((name) => parts.includes(name)),
    ...(provider === undefined ? {} : { provider }),
    ...(precision === undefined ? {} : { precision }),
    ...(values.config === undefined ? {} : { config: values.config }),
    help: values.help ?? false,
  };
}

function parseValues(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        quick: { type: "boolean" },
        json: { type: "string" },
        "allow-software": { type: "boolean" },
        provider: { type: "string" },
        precision: { type: "string" },
        parts: { type: "string" },
        config: { type: "string" },
        help: { type: "boolean" },
      },
    }).values;
  } catch (error) {
    // Node adds advice in further sentences.
    throw new InputError(`${errorMessage(error).split(/[.\n]\s/)[0]}: --help lists the flags`);
  }
}

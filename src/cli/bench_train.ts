/**
 * `deno task bench --train`: fine-tuning steps dense and sparse, on the CPU and on a GPU, runs on a file, PyTorch's
 * numbers beside them.
 * @module
 */
import { compareByPrecision, compareWith, describeOrigin, readOtherResults } from "../../bench/against.ts";
import { describeGpu, gpuPeaks, timedPrecisions } from "../../bench/gpu/adapter.ts";
import { benchGpuTraining } from "../../bench/gpu/train_steps.ts";
import { describeMachine } from "../../bench/machine.ts";
import type { TrainBatch } from "../../bench/step_runner.ts";
import { benchTraining, trainBatches, trainSparsities } from "../../bench/train.ts";
import { benchTrainFile, type TrainFileRow } from "../../bench/train_file.ts";
import { type Compared, formatTraining } from "../../bench/train_report.ts";
import type { TrainRow } from "../../bench/train.ts";
import type { BertConfig } from "../../models/config.ts";
import { presetConfig, presetOf } from "../../models/presets.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import { chooseThreads } from "../core/cores.ts";
import { InputError } from "../core/errors.ts";
import { gpuOptions } from "../finetune/device.ts";
import { defaultMaximumLength } from "../finetune/options.ts";
import { parsePattern } from "../pruning/pattern.ts";
import { jsonOnStandardOutput, writeJson } from "./command.ts";

/** The flags of `bench` that `--train` heeds. */
export interface BenchTrainFlags {
  /** Set without a value, or the training file. */
  readonly train: true | string;
  readonly device: string;
  /** As given; absent: all that the GPU has. */
  readonly precision?: string;
  readonly model?: string;
  readonly synthetic?: string;
  readonly tokenizer?: string;
  /** As given; absent: the usual sparsities. */
  readonly sparsity?: number;
  readonly pattern: string;
  readonly batch?: number;
  readonly tokens?: number;
  readonly threads?: number;
  readonly seconds: number;
  readonly isa?: string;
  readonly maxTrainSamples: number;
  readonly against: readonly string[];
  readonly json?: string;
}

/** A model to train. */
interface Subject {
  readonly name: string;
  readonly config: BertConfig;
}

/** Measures, prints tables, writes `--json`. */
export async function runBenchTrain(flags: BenchTrainFlags): Promise<void> {
  const { isa, model, synthetic, seconds } = flags;
  if (model !== undefined && synthetic !== undefined) {
    throw new InputError("--model and --synthetic exclude each other: wanted one of them");
  }
  const { device, precision } = flags;
  if (device !== "cpu" && device !== "webgpu" && device !== "dawn") {
    throw new InputError(`--device is ${device}: wanted cpu, webgpu or dawn`);
  }
  if (device === "cpu" && precision !== undefined && precision !== "fp32") {
    throw new InputError(`--precision is ${precision}: wanted fp32 on the CPU`);
  }
  const pattern = parsePattern(flags.pattern);
  const sparsities = flags.sparsity === undefined ? trainSparsities : [...new Set([0, flags.sparsity])];
  const subjects = await subjectsOf(model, synthetic);
  const batches = batchesOf(flags);
  const otherResults = await readOtherResults(flags.against);
  const others = otherResults.flatMap(({ rows }) => rows);
  const threads = chooseThreads(flags.threads);
  const machine = await describeMachine(isa);
  const note = (text: string) => console.error(text);
  note(`${machine.isa}, ${threads.count} threads (${threads.reason})`);
  const onProgress = progressNotes(note);
  const gpu = device === "cpu" ? undefined : await findGpu(device, precision);
  if (gpu) {
    const kind = gpu.result.isSoftware ? ", a CPU that plays a GPU: slow" : "";
    note(`${gpu.result.name}${kind}, in ${gpu.precisions.join(" and ")}`);
  }
  const compared = <Row extends TrainRow | TrainFileRow>(rows: readonly Row[]): Compared<Row>[] =>
    rows.map((row) => {
      const against = compareWith(others, row);
      if (!against) return row;
      const isOnGpu = "device" in row && row.device !== "cpu";
      return {
        ...row,
        against,
        ...(isOnGpu ? { against_by_precision: compareByPrecision(others, row) } : {}),
      };
    });

  const rows: Compared<TrainRow>[] = [];
  const fileRows: Compared<TrainFileRow>[] = [];
  for (const { name, config } of subjects) {
    // The file first: what is wrong with it is found before minutes of measuring.
    if (flags.train !== true) {
      note(`${name}, finetune on ${flags.train}`);
      fileRows.push(...compared(
        await benchTrainFile({
          file: flags.train,
          ...(model === undefined ? { preset: name, tokenizer: flags.tokenizer } : { folder: model }),
          model: name,
          sparsities: flags.sparsity === undefined ? [0, 0.9] : sparsities,
          pattern,
          batch: flags.batch ?? 32,
          threads: threads.count,
          isa,
          maximumLength: Math.min(defaultMaximumLength, config.maximumPositions),
          maximumSamples: flags.maxTrainSamples,
          onProgress,
        }),
      ));
    }
    for (const batch of batches) {
      note(`${name}, ${batch.batch} sequences of ${batch.tokens} tokens`);
      rows.push(...compared(
        await benchTraining({
          ...batch,
          config,
          model: name,
          sparsities,
          pattern,
          threads: threads.count,
          isa,
          seconds,
          peakGflops: machine.peak_gflops,
          onProgress,
        }),
      ));
      if (!gpu) continue;
      for (const precision of gpu.precisions) {
        rows.push(...compared(
          await benchGpuTraining({
            ...gpu.options,
            ...batch,
            config,
            model: name,
            precision,
            // Pruned matrices run dense there, in the same time.
            sparsities: flags.sparsity === undefined ? [0] : sparsities,
            pattern,
            isa,
            seconds,
            peakGflops: 1000 * gpu.result.peaks.fp32_tflops,
            onProgress,
          }),
        ));
      }
    }
  }
  const config = {
    models: subjects.map(({ name }) => name).join(", "),
    pattern,
    threads: threads.count,
    seconds,
    ...(flags.train === true ? {} : { file: flags.train, max_train_samples: flags.maxTrainSamples }),
    deno: Deno.version.deno,
  };
  const result = {
    machine,
    ...(gpu ? { gpu: gpu.result } : {}),
    config,
    rows,
    file_rows: fileRows,
    ...(otherResults.length > 0
      ? { against: otherResults.map(({ path, origin }) => ({ file: path, ...origin })) }
      : {}),
  };
  if (!jsonOnStandardOutput(flags.json)) console.log(`\n${formatTraining(result)}`);
  for (const other of otherResults) note(describeOrigin(other, machine.cpu));
  if (others.length > 0 && ![...rows, ...fileRows].some(({ against }) => against)) {
    note(`no row of ${flags.against.join(", ")} has the same device, model, batch, tokens and threads`);
  }
  await writeJson(flags.json, result);
}

/** The GPU with its limits, one that a CPU plays too: it was asked for. Throws `UnsupportedError` where there is none. */
async function findGpu(device: "webgpu" | "dawn", precision: string | undefined) {
  const options = gpuOptions(device);
  const description = await describeGpu(options);
  const precisions = timedPrecisions(precision, description); // Before seconds of measuring.
  return { options, precisions, result: { ...description, peaks: await gpuPeaks(options) } };
}

async function subjectsOf(model: string | undefined, synthetic: string | undefined): Promise<Subject[]> {
  if (model !== undefined) {
    const { config } = await openModel(model);
    return [{ name: presetOf(config) ?? model, config }];
  }
  const names = synthetic === undefined ? ["bert-tiny", "minilm-l6", "bert-base"] : [synthetic];
  return names.map((name) => ({ name, config: presetConfig(name) }));
}

/** The batch asked for, or the usual ones. */
function batchesOf({ batch, tokens }: BenchTrainFlags): readonly TrainBatch[] {
  if (batch === undefined && tokens === undefined) return trainBatches;
  return [{ batch: batch ?? 32, tokens: tokens ?? 32 }];
}

/** Prints an activity when it begins. */
function progressNotes(note: (text: string) => void): (activity: string, share?: number) => void {
  let current = "";
  return (activity, share) => {
    if (activity !== current) note(`  ${activity}`);
    current = share === 1 ? "" : activity;
  };
}

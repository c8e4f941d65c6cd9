/**
 * The progress of a run: a bar on a terminal, a line now and then elsewhere.
 * @module
 */
import process from "node:process";
import { Presets, SingleBar } from "cli-progress";
import type { CompilingProgress, DataProgress, StepProgress } from "../finetune/mod.ts";

/** Lines printed over a whole run when standard error is no terminal. */
const plainLines = 20;

/** Shows steps; `note` prints a line without breaking the bar. */
export class ProgressDisplay {
  #bar: SingleBar | undefined;
  #lastLine = -1;
  readonly #terminal = Deno.stderr.isTerminal();

  /** Moves the bar. */
  step(progress: StepProgress): void {
    const { completedSteps, totalSteps } = progress;
    if (!this.#terminal) {
      const line = Math.floor((completedSteps * plainLines) / totalSteps);
      if (line === this.#lastLine) return;
      this.#lastLine = line;
      console.error(`step ${completedSteps}/${totalSteps}  ${describe(progress)}`);
      return;
    }
    this.#show(completedSteps, totalSteps, describe(progress));
  }

  /** Moves the bar of the texts; without a terminal nothing is said, as data that are bad end with one line. */
  data({ rows, totalRows }: DataProgress): void {
    if (this.#terminal) this.#show(rows, totalRows, "texts tokenised");
  }

  /** Moves the bar of the shaders, on a terminal. */
  compiling({ shaders, totalShaders }: CompilingProgress): void {
    if (this.#terminal && shaders < totalShaders) this.#show(shaders, totalShaders, "shaders compiled");
  }

  /** Prints a line above the bar. */
  note(text: string): void {
    this.stop();
    console.error(text);
  }

  /** Takes the bar away; the next step brings it back. */
  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }

  #show(value: number, total: number, text: string): void {
    if (this.#bar?.getTotal() !== total) this.stop();
    if (!this.#bar) {
      this.#bar = new SingleBar({
        format: "{bar} {value}/{total}  {text}",
        barsize: 24,
        // A run may be ended at any moment, and by default the library would keep SIGTERM from ending it.
        gracefulExit: false,
        clearOnComplete: true,
        // Not Deno's own stream: the library asks a stream whether it is a terminal.
        stream: process.stderr,
      }, Presets.shades_classic);
      this.#bar.start(total, value, { text });
    }
    this.#bar.update(value, { text });
  }
}

function describe(progress: StepProgress): string {
  const { loss, learningRate, sparsity, tokensPerSecond, remainingSeconds, epoch } = progress;
  return [
    `epoch ${epoch.toFixed(2)}`,
    `loss ${loss.toFixed(4)}`,
    `lr ${learningRate.toExponential(2)}`,
    `sparsity ${(sparsity * 100).toFixed(1)} %`,
    `${Math.round(tokensPerSecond).toLocaleString("en")} tokens/s`,
    `${formatDuration(remainingSeconds)} left`,
  ].join("  ");
}

/** Seconds as `1 h 02 min`, `3 min 05 s` or `42 s`. */
export function formatDuration(seconds: number): string {
  const whole = Math.round(seconds);
  const pad = (value: number) => String(value).padStart(2, "0");
  if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} min`;
  if (whole >= 60) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  return `${whole} s`;
}

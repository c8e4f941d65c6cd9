/**
 * For tests: runs a command with exactly the permissions its task in `deno.json` has, but in a folder of the test's.
 * @module
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const configuration = join(root, "deno.json");

/** How to run a task. */
export interface TaskOptions {
  /** Working folder. */
  readonly cwd: string;
  /** Variables to set. */
  readonly env?: Readonly<Record<string, string>>;
  /** Whether standard input can be written to; else it is empty. */
  readonly stdin?: "piped" | "null";
  /** A program with arguments that starts the command given after them: a shell that sets limits. */
  readonly launcher?: readonly string[];
}

/** What a task did. */
export interface TaskOutput {
  readonly code: number;
  readonly stdout: string;
  /** Lines of standard error. */
  readonly errors: readonly string[];
}

/** Starts a task. */
export function startTask(name: string, args: readonly string[], options: TaskOptions): Deno.ChildProcess {
  const { tasks } = JSON.parse(Deno.readTextFileSync(configuration));
  const [, run, ...words] = (tasks[name].command as string).split(" ");
  const script = words.pop()!;
  const command = [run, "--no-prompt", "--config", configuration, ...words, join(root, script), ...args];
  const [program, ...programArgs] = [...options.launcher ?? [], Deno.execPath(), ...command];
  return new Deno.Command(program, {
    args: programArgs,
    cwd: options.cwd,
    env: { NO_COLOR: "1", ...options.env },
    stdin: options.stdin ?? "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Runs a task to its end, with that text on standard input. */
export async function runTask(
  name: string,
  args: readonly string[],
  options: TaskOptions & { readonly input?: string },
): Promise<TaskOutput> {
  const piped = options.input !== undefined;
  const child = startTask(name, args, { ...options, stdin: piped ? "piped" : "null" });
  const [{ code, stdout, stderr }] = await Promise.all([
    child.output(),
    piped ? new Blob([options.input!]).stream().pipeTo(child.stdin) : undefined,
  ]);
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), errors: text(stderr).split("\n").filter((line) => line !== "") };
}

/**
 * Runs the tests of everything that has shaders, each file in a process of its own: a driver that takes one down leaves the others.
 * @module
 */
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { errorMessage } from "../../src/core/errors.ts";
import { readText } from "../../src/core/files.ts";

/** What one file of tests did. */
export interface TestFile {
  readonly file: string;
  readonly seconds: number;
  /** Tests; a test with steps counts once. */
  readonly passed: number;
  readonly failed: number;
  readonly ignored: number;
  /** Tests and steps of tests that failed, and what else went wrong with the file. */
  readonly failures: readonly TestFailure[];
  /** Why the file was not run, where a configuration leaves out what it imports. */
  readonly left_out?: string;
}

/** A failed test. */
export interface TestFailure {
  readonly name: string;
  /** First line of the error. */
  readonly message: string;
}

/** The result, with the sums of all files. */
export interface KernelTests {
  readonly passed: number;
  readonly failed: number;
  readonly ignored: number;
  readonly files: readonly TestFile[];
}

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Files at a time: they start one GPU each. */
const concurrency = Math.max(1, Math.min(6, Math.floor(navigator.hardwareConcurrency / 2)));

/** Minutes would be a test that hangs. */
const longestMs = 180_000;

/** The test files of operations that have shaders, and of what runs them, relative to the project's folder. */
export async function shaderTestFiles(folders: readonly string[] = ["src", "workers"]): Promise<string[]> {
  const files: string[] = [];
  const visit = async (folder: string) => {
    const entries = await Array.fromAsync(Deno.readDir(folder));
    const isOperation = basename(dirname(folder)) === "kernels";
    const hasShaders = basename(folder) === "webgpu" ||
      isOperation && entries.some(({ name }) => /^wgsl.*\.ts$/.test(name));
    for (const { name, isDirectory } of entries) {
      if (isDirectory) await visit(join(folder, name));
      else if (name.endsWith("_test.ts") && (hasShaders || /wgsl|gpu|shader/.test(name))) {
        files.push(relative(root, join(folder, name)));
      }
    }
  };
  for (const folder of folders) await visit(join(root, folder));
  return files.sort();
}

/** How tests are run. */
export interface TestRunOptions {
  /** The configuration file; default the project's. */
  readonly config?: string;
  readonly onProgress?: (activity: string) => void;
}

/** Runs test files, some at a time. Never throws for what is wrong with one of them. */
export async function runTestFiles(
  files: readonly string[],
  { config, onProgress }: TestRunOptions = {},
): Promise<KernelTests> {
  const results: TestFile[] = [];
  const waiting = [...files];
  const scratch = await Deno.makeTempDir({ prefix: "lacuna-gpu-tests-" });
  try {
    await Promise.all(Array.from({ length: concurrency }, async () => {
      for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
        const result = await runTestFile(file, join(scratch, `${file.replaceAll("/", "_")}.xml`), config);
        results.push(result);
        onProgress?.(`${file}: ${result.left_out ?? `${result.passed} passed, ${result.failed} failed`}`);
      }
    }));
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
  const sum = (count: (file: TestFile) => number) => results.reduce((total, file) => total + count(file), 0);
  return {
    passed: sum(({ passed }) => passed),
    failed: sum(({ failed }) => failed),
    ignored: sum(({ ignored }) => ignored),
    files: results.sort((a, b) => a.file < b.file ? -1 : 1),
  };
}

async function runTestFile(file: string, junit: string, config?: string): Promise<TestFile> {
  const begin = performance.now();
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...["test", "-A", "--no-check", `--junit-path=${junit}`],
      ...(config === undefined ? [] : ["--config", config]),
      file,
    ],
    cwd: root,
    env: { NO_COLOR: "1", LACUNA_TUNING: "off", LACUNA_REQUIRE_WEBGPU: "1" },
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const timer = setTimeout(() => child.kill("SIGKILL"), longestMs);
  const { code, signal, stderr } = await child.output();
  clearTimeout(timer);
  const seconds = (performance.now() - begin) / 1000;
  const text = new TextDecoder().decode(stderr).trim();
  const missing = config === undefined ? null : text.match(/Import "([^"]+)" not a dependency/);
  if (missing) {
    return { file, seconds, passed: 0, failed: 0, ignored: 0, failures: [], left_out: `wants ${missing[1]}` };
  }
  const lines = text.split("\n");
  const lastWords = lines.find((line) => /^error|panicked/.test(line)) ?? lines.at(-1);
  const died = (message: string): TestFile => {
    const failures = [{ name: dirname(file), message }];
    return { file, seconds, passed: 0, failed: 1, ignored: 0, failures };
  };
  if (signal) return died(`ended by ${signal} after ${seconds.toFixed(0)} s: ${lastWords}`);
  let counts: ReturnType<typeof parseJunit>;
  try {
    counts = parseJunit(await readText(junit));
  } catch (error) {
    return died(`exit code ${code}, ${errorMessage(error)}: ${lastWords}`);
  }
  if (code !== 0 && counts.failed === 0) return died(`exit code ${code}: ${lastWords}`);
  return { file, seconds, ...counts };
}

/** Counts and failures of a report that `deno test --junit-path` wrote. Steps are cases named `test > step`. */
export function parseJunit(xml: string) {
  const failures: TestFailure[] = [];
  let [passed, failed, ignored] = [0, 0, 0];
  for (const [, escapedName, body] of xml.matchAll(/<testcase name="([^"]*)"[^>]*>(.*?)<\/testcase>/gs)) {
    const name = unescapeXml(escapedName);
    const failure = body.match(/<failure message="([^"]*)"/)?.[1];
    const isStep = name.includes(" > ");
    if (failure !== undefined) {
      const [message] = unescapeXml(failure).replace(/^Uncaught /, "").split("\n");
      // A test whose steps failed says so, which the steps say better.
      if (!/^\d+ test steps? failed$/.test(message)) failures.push({ name, message });
    }
    if (isStep) continue;
    if (body.includes("<skipped")) ignored++;
    else if (failure !== undefined) failed++;
    else passed++;
  }
  return { passed, failed, ignored, failures };
}

function unescapeXml(text: string): string {
  const names: Readonly<Record<string, string>> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
  return text.replace(/&(lt|gt|quot|apos|amp);/g, (_, name) => names[name]);
}

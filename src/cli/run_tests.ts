/**
 * `deno task test`: all tests, and a closing line `N passed, N failed` that scripts can read.
 *
 * (Not called `test.ts`: the runner would take it for a test and start itself, again and again.)
 * @module
 */

/** What `deno test` says at its end: `ok | 12 passed (3 steps) | 0 failed (5s)`. */
const summary = /(?:ok|FAILED) \| (\d+) passed[^|]*\| (\d+) failed/g;

/** Runs `deno test` with the arguments given and shows its output as it comes. */
async function runTests(): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["test", "-A", "--no-check", "--sanitize-ops", "--sanitize-resources", ...Deno.args],
    // What one test measures must not decide what another runs; tests of tuning name a file.
    env: { NO_COLOR: "1", LACUNA_TUNING: "off" },
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of child.stdout) {
    await Deno.stdout.write(chunk);
    text += decoder.decode(chunk, { stream: true });
  }
  const { code } = await child.status;
  const [, passed, failed] = [...text.matchAll(summary)].at(-1) ?? ["", "0", "0"];
  // A run that fails before or after its tests (a module that does not load, a leak) counts as a failure too.
  const failures = Math.max(Number(failed), code === 0 ? 0 : 1);
  console.log(`${passed} passed, ${failures} failed`);
  return code;
}

Deno.exit(await runTests());

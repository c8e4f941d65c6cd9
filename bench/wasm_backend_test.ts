import assert from "node:assert/strict";

Deno.test("onnxruntime-web is the version that transformers.js depends on", async () => {
  const [lock, { imports }] = await Promise.all(
    ["deno.lock", "deno.json"].map(async (name) =>
      JSON.parse(await Deno.readTextFile(new URL(`../${name}`, import.meta.url)))
    ),
  );
  const dependents: string[] = lock.npm[imports["@xenova/transformers"].slice("npm:".length)].dependencies;
  // The lock file writes a dependency without its version where there is only one, and ours is in it.
  assert(dependents.includes("onnxruntime-web"), `${dependents}`);
  assert.equal(imports["onnxruntime-web"], `npm:${versions(lock, "onnxruntime-web")}`);
});

/** The package with each of its versions that the lock file has. */
function versions(lock: { readonly npm: Readonly<Record<string, unknown>> }, name: string): string {
  return Object.keys(lock.npm).filter((key) => key.startsWith(`${name}@`)).join(", ");
}

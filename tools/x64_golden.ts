/**
 * Writes src/assemblers/golden/x64.json: the bytes GNU `as` gives for instructions of every form the encoder has.
 *
 * Run by hand when the encoder learns an instruction (needs binutils, `as` and `objcopy`):
 *
 *     deno run --allow-run=as,objcopy --allow-read --allow-write tools/x64_golden.ts
 * @module
 */
import { encoderCases } from "../src/assemblers/x64_cases.ts";
import { assembleText, binutilsVersion } from "../src/assemblers/x64_gnu.ts";
import { randomKey, RandomStream } from "../src/core/random.ts";

if (import.meta.main) {
  const version = await binutilsVersion();
  if (version === undefined) throw new Error("GNU as is not on this machine");
  const texts = [
    ...new Set(encoderCases(new RandomStream(randomKey(1, "x64 golden")), 8).map(({ text }) => text)),
  ];
  const codes = await assembleText(texts);
  const cases = Object.fromEntries(texts.map((text, index) => [text, codes[index].toHex()]));
  const path = new URL("../src/assemblers/golden/x64.json", import.meta.url);
  await Deno.mkdir(new URL(".", path), { recursive: true });
  await Deno.writeTextFile(path, JSON.stringify({ assembler: version, cases }, undefined, 1) + "\n");
}

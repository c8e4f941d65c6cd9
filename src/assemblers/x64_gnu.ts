/**
 * GNU `as`, where the machine has it: an independent opinion on what bytes an instruction has. For tests and tools.
 * @module
 */

/** First line of `as --version`, or undefined where there is none. */
export async function binutilsVersion(): Promise<string | undefined> {
  try {
    const { success, stdout } = await new Deno.Command("as", { args: ["--version"] }).output();
    return success ? new TextDecoder().decode(stdout).split("\n")[0] : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** The bytes of each text (Intel syntax, any number of lines). Throws with the assembler's words when it rejects one. */
export async function assembleText(texts: readonly string[]): Promise<Uint8Array[]> {
  const folder = await Deno.makeTempDir({ prefix: "lacuna-x64-" });
  try {
    // Lengths go to a section of their own, so that no separator has to be found among the instructions.
    const pieces = texts.map((text, index) => `s${index}:\n${text}\ne${index}:`);
    const lengths = texts.map((_, index) => `.long e${index}-s${index}`);
    const source = [
      ".intel_syntax noprefix",
      ".text",
      ...pieces,
      '.section .lengths,"a"',
      ...lengths,
      "",
    ].join("\n");
    await Deno.writeTextFile(`${folder}/in.s`, source);
    await run("as", ["--64", "-o", `${folder}/out.o`, `${folder}/in.s`]);
    const section = async (name: string) => {
      await run("objcopy", ["-O", "binary", "-j", name, `${folder}/out.o`, `${folder}/section`]);
      return await Deno.readFile(`${folder}/section`);
    };
    const code = await section(".text");
    const sizes = new Uint32Array((await section(".lengths")).buffer);
    let position = 0;
    return texts.map((_, index) => code.slice(position, position += sizes[index]));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function run(program: string, args: readonly string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args: [...args] }).output();
  if (!success) throw new Error(`${program} failed: ${new TextDecoder().decode(stderr)}`);
}

/**
 * Native vectors as machines: AVX-512 and AVX2 code in shared objects made at run time, on x86-64 Linux with
 * `--allow-ffi`.
 *
 * An image is published once and linked in every worker; it belongs to one arena, whose address its data holds.
 * With `LACUNA_DUMP=folder` (and the permissions to read that and to write there) each image is also written to that
 * folder, for `objdump -d`.
 * @module
 */
import { assembleX64, bindSymbol, type X64Isa, x64Vectors } from "../assemblers/x64.ts";
import type { Kernel } from "../kernels/kernel.ts";
import { errorMessage } from "../core/errors.ts";
import { type Cpu, probeCpu } from "./cpu.ts";
import { encodeSharedObject } from "./elf.ts";
import type { LinkedKernel, Machine, NativeImage } from "./machine.ts";
import { openSharedObject, publishSharedObject } from "./native_loader.ts";

/** The processor of this host, or why native code cannot run here. */
type Host = { readonly cpu: Cpu } | { readonly reason: string };

let host: Host | undefined;

function inspectHost(): Host {
  const { os, arch } = Deno.build;
  if (os !== "linux" || arch !== "x86_64") return { reason: `this is ${arch} ${os}, not x86_64 linux` };
  if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") {
    return { reason: "loading native code needs --allow-ffi" };
  }
  try {
    return { cpu: probeCpu() };
  } catch (error) {
    return { reason: errorMessage(error) };
  }
}

/** The processor of this host, or undefined where native code cannot run. */
export function nativeCpu(): Cpu | undefined {
  host ??= inspectHost();
  return "cpu" in host ? host.cpu : undefined;
}

/** Why an instruction set cannot run here, or undefined when it can. AVX2 is the least there is. */
export function nativeUnavailableReason(isa: X64Isa = "avx2"): string | undefined {
  host ??= inspectHost();
  if ("reason" in host) return host.reason;
  const { avx2, avx512, name } = host.cpu;
  if (isa === "avx2" && !avx2) return `the processor (${name}) or the system lacks AVX2 with FMA`;
  if (isa === "avx512" && !avx512) {
    return `the processor (${name}) or the system lacks AVX-512 F, BW, DQ and VL`;
  }
  return undefined;
}

/** The native machines of this host, fastest first. */
export function nativeMachines(): Machine[] {
  return (["avx512", "avx2"] as const).filter((isa) => nativeUnavailableReason(isa) === undefined).map(
    (isa) => {
      const cpu = nativeCpu()!;
      return nativeMachine({ isa, vnni: isa === "avx512" ? cpu.avx512Vnni : cpu.avxVnni });
    },
  );
}

/** The machine of one instruction set. Whether this host runs it is for `nativeUnavailableReason` to say. */
export function nativeMachine({ isa, vnni }: { readonly isa: X64Isa; readonly vnni: boolean }): Machine {
  return {
    isa,
    ...x64Vectors[isa],
    assemble(kernels: readonly Kernel[]): NativeImage {
      const code = assembleX64(kernels, { isa, vnni });
      const image = encodeSharedObject(code);
      dump(isa, image);
      return {
        kind: "native",
        keys: code.symbols.map(({ name }) => name).filter((name) => name !== bindSymbol),
        path: publishSharedObject(`lacuna-${isa}`, image),
      };
    },
  };
}

let dumped = 0;

function dump(isa: string, image: Uint8Array): void {
  const isReadable = Deno.permissions.querySync({ name: "env", variable: "LACUNA_DUMP" }).state === "granted";
  const folder = isReadable ? Deno.env.get("LACUNA_DUMP") : undefined;
  if (folder) Deno.writeFileSync(`${folder}/lacuna-${isa}-${Deno.pid}-${dumped++}.so`, image);
}

/**
 * Links an image in this thread. Gives the kernels in the order of `image.keys`. Throws a TypeError when the image is
 * linked to another arena already, in any thread.
 */
export function linkNative(image: NativeImage, memory: WebAssembly.Memory): readonly LinkedKernel[] {
  const kernel = { parameters: ["i32"], result: "void" } as const;
  const functions = openSharedObject(image.path, {
    [bindSymbol]: { parameters: ["pointer"], result: "pointer" },
    ...Object.fromEntries(image.keys.map((key) => [key, kernel])),
  }) as unknown as
    & Record<string, LinkedKernel>
    & Record<typeof bindSymbol, (arena: Deno.PointerValue) => Deno.PointerValue>;
  const arena = Deno.UnsafePointer.of(new Uint8Array(memory.buffer));
  const before = functions[bindSymbol](arena);
  if (before !== null && !Deno.UnsafePointer.equals(before, arena)) {
    functions[bindSymbol](before);
    throw new TypeError("Cannot link native code to a second arena: assemble the kernels again");
  }
  return image.keys.map((key) => functions[key]);
}

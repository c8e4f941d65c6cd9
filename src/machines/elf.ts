/**
 * A minimal ELF64 shared object for x86-64: what the dynamic loader needs to map assembled code and find its
 * functions by name, and no more.
 *
 * Three segments, never writable and executable at once:
 *
 *     read           ELF header, program headers, symbols, hash table, names, constants
 *     read, execute  text
 *     read, write    dynamic section, data
 *
 * The library stays mapped until the process ends, also when whoever opened it closes it.
 *
 * Section headers are for tools only: `objdump -d` shows every function under its name.
 * Source: System V ABI (gABI 4.1), chapters 4 and 5, and its AMD64 supplement.
 * @module
 */
import type { X64Code } from "../assemblers/x64.ts";

const pageBytes = 4096;
const headerBytes = 64;
const programHeaderBytes = 56;
const sectionHeaderBytes = 64;
const symbolBytes = 24;
const dynamicEntryBytes = 16;

const segmentType = { load: 1, dynamic: 2, stack: 0x6474e551 } as const;
const access = { execute: 1, write: 2, read: 4 } as const;
const dynamicTag = {
  end: 0,
  hash: 4,
  names: 5,
  symbols: 6,
  namesBytes: 10,
  symbolBytes: 11,
  flags1: 0x6ffffffb,
} as const;
/** Closing the library leaves it mapped. */
const noDelete = 8;
const sectionType = { progbits: 1, names: 3, hash: 5, dynamic: 6, dynamicSymbols: 11 } as const;
const sectionFlag = { write: 1, allocate: 2, execute: 4 } as const;

/** The hash of a symbol's name (gABI chapter 5). */
export function symbolHash(name: string): number {
  let hash = 0;
  for (const character of name) {
    hash = (hash << 4) + character.charCodeAt(0) >>> 0;
    const top = hash & 0xf0000000;
    hash = (hash ^ top >>> 24) & ~top;
  }
  return hash >>> 0;
}

/** Names as zero-terminated strings one after another, and where each begins. */
class StringTable {
  readonly #bytes = [0];

  add(name: string): number {
    const offset = this.#bytes.length;
    this.#bytes.push(...new TextEncoder().encode(name), 0);
    return offset;
  }

  get bytes(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }
}

/** A range of the file. Addresses are offsets: the loader puts the file's first byte wherever it likes. */
interface Place {
  readonly offset: number;
  readonly bytes: number;
}

/** Writes fields of a file from front to back. */
class FieldWriter {
  readonly #view: DataView;

  constructor(file: Uint8Array<ArrayBuffer>, public offset: number) {
    this.#view = new DataView(file.buffer);
  }

  byte(...values: readonly number[]): this {
    for (const value of values) this.#view.setUint8(this.offset++, value);
    return this;
  }

  half(...values: readonly number[]): this {
    for (const value of values) {
      this.#view.setUint16(this.offset, value, true);
      this.offset += 2;
    }
    return this;
  }

  word(...values: readonly number[]): this {
    for (const value of values) {
      this.#view.setUint32(this.offset, value, true);
      this.offset += 4;
    }
    return this;
  }

  /** 64-bit values, exact below 2⁵³. */
  long(...values: readonly number[]): this {
    for (const value of values) {
      this.#view.setBigUint64(this.offset, BigInt(value), true);
      this.offset += 8;
    }
    return this;
  }
}

/** The shared object that exports every symbol of the code. */
export function encodeSharedObject(code: X64Code): Uint8Array<ArrayBuffer> {
  const { text, symbols, constants } = code;
  const names = new StringTable();
  const nameOffsets = symbols.map(({ name }) => names.add(name));
  const sectionNames = new StringTable();
  const symbolCount = symbols.length + 1;

  // Where everything goes.
  let end = 0;
  const place = (bytes: number, alignment: number): Place => {
    const offset = Math.ceil(end / alignment) * alignment;
    end = offset + bytes;
    return { offset, bytes };
  };
  const header = place(headerBytes + 5 * programHeaderBytes, 8);
  const symbolTable = place(symbolCount * symbolBytes, 8);
  const hashTable = place(4 * (2 + symbols.length + symbolCount), 4);
  const nameTable = place(names.bytes.length, 1);
  const constantPlace = place(constants.length, 64);
  const readOnly: Place = { offset: 0, bytes: end };
  const textPlace = place(text.length, pageBytes);
  const dynamic = place(7 * dynamicEntryBytes, pageBytes);
  const data = place(code.dataBytes, 64);
  const writable: Place = { offset: dynamic.offset, bytes: end - dynamic.offset };

  const { allocate, execute, write } = sectionFlag;
  // Type, flags, range, alignment; link to the section of names, one other number, bytes of an entry.
  const sections = [
    [".dynsym", sectionType.dynamicSymbols, allocate, symbolTable, 8, 3, 1, symbolBytes],
    [".hash", sectionType.hash, allocate, hashTable, 4, 1, 0, 4],
    [".dynstr", sectionType.names, allocate, nameTable, 1, 0, 0, 0],
    [".rodata", sectionType.progbits, allocate, constantPlace, 64, 0, 0, 0],
    [".text", sectionType.progbits, allocate | execute, textPlace, 64, 0, 0, 0],
    [".dynamic", sectionType.dynamic, allocate | write, dynamic, 8, 3, 0, dynamicEntryBytes],
    [".data", sectionType.progbits, allocate | write, data, 64, 0, 0, 0],
  ] as const;
  const textSection = 1 + sections.findIndex(([name]) => name === ".text");
  const sectionNameOffsets = sections.map(([name]) => sectionNames.add(name));
  const ownName = sectionNames.add(".shstrtab");
  const sectionNameTable = place(sectionNames.bytes.length, 1);
  const sectionTable = place((sections.length + 2) * sectionHeaderBytes, 8);

  const file = new Uint8Array(end);
  const fields = (offset: number) => new FieldWriter(file, offset);

  // ELF header: 64-bit, little-endian, shared object, x86-64.
  fields(0).byte(0x7f, 0x45, 0x4c, 0x46, 2, 1, 1).byte(...Array(9).fill(0)).half(3, 62).word(1)
    .long(0, headerBytes, sectionTable.offset).word(0)
    .half(headerBytes, programHeaderBytes, 5, sectionHeaderBytes, sections.length + 2, sections.length + 1);
  const segments = fields(headerBytes);
  const segment = (type: number, flags: number, { offset, bytes }: Place, alignment: number) =>
    segments.word(type, flags).long(offset, offset, offset, bytes, bytes, alignment);
  segment(segmentType.load, access.read, readOnly, pageBytes);
  segment(segmentType.load, access.read | access.execute, textPlace, pageBytes);
  segment(segmentType.load, access.read | access.write, writable, pageBytes);
  segment(segmentType.dynamic, access.read | access.write, dynamic, 8);
  // Without this the loader would make the stacks of all threads executable.
  segment(segmentType.stack, access.read | access.write, { offset: 0, bytes: 0 }, 16);
  if (segments.offset !== header.bytes) throw new RangeError("ELF program headers overflow their place");

  // Symbols: global functions, hidden from nobody. Symbol 0 is the empty one.
  const symbolFields = fields(symbolTable.offset + symbolBytes);
  symbols.forEach(({ offset, byteLength }, index) => {
    symbolFields.word(nameOffsets[index]).byte(0x12, 0).half(textSection)
      .long(textPlace.offset + offset, byteLength);
  });

  // Hash table: a bucket per symbol holds the first symbol of a chain.
  const buckets = new Uint32Array(symbols.length);
  const chains = new Uint32Array(symbolCount);
  symbols.forEach(({ name }, index) => {
    const bucket = symbolHash(name) % buckets.length;
    chains[index + 1] = buckets[bucket];
    buckets[bucket] = index + 1;
  });
  fields(hashTable.offset).word(buckets.length, symbolCount, ...buckets, ...chains);

  file.set(names.bytes, nameTable.offset);
  file.set(constants, constantPlace.offset);
  file.set(text, textPlace.offset);
  const sectionOffset = { constants: constantPlace.offset, data: data.offset };
  for (const { position, end, section, offset } of code.fixups) {
    const distance = sectionOffset[section] + offset - (textPlace.offset + end);
    fields(textPlace.offset + position).word(distance >>> 0);
  }
  fields(dynamic.offset)
    .long(dynamicTag.hash, hashTable.offset, dynamicTag.names, nameTable.offset)
    .long(dynamicTag.symbols, symbolTable.offset, dynamicTag.namesBytes, nameTable.bytes)
    .long(dynamicTag.symbolBytes, symbolBytes, dynamicTag.flags1, noDelete, dynamicTag.end, 0);

  const sectionFields = fields(sectionTable.offset + sectionHeaderBytes);
  sections.forEach(([, type, flags, { offset, bytes }, alignment, link, info, entryBytes], index) => {
    sectionFields.word(sectionNameOffsets[index], type).long(flags, offset, offset, bytes).word(link, info)
      .long(alignment, entryBytes);
  });
  sectionFields.word(ownName, sectionType.names).long(0, 0, sectionNameTable.offset, sectionNameTable.bytes)
    .word(0, 0).long(1, 0);
  file.set(sectionNames.bytes, sectionNameTable.offset);
  return file;
}

/**
 * Reader of QEMU's migration stream as far as the section of RAM goes (migration/savevm.c,
 * migration/ram.c; version 3). Device state after it is passed over: nothing in it says how long it
 * is. All numbers are big-endian.
 */
import { PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { OnPage } from '../host-control.ts';

const MAGIC = 0x5145564d;
const VERSION = 3;

/** Section types; what is not here does not come before the end of RAM. */
const Section = {
  EOF: 0x00,
  START: 0x01,
  PART: 0x02,
  END: 0x03,
  FULL: 0x04,
  CONFIGURATION: 0x07,
  COMMAND: 0x08,
  FOOTER: 0x7e,
} as const;

/** RAM_SAVE_FLAG_*: low bits of a page's offset. */
const RamFlag = { ZERO: 0x02, MEM_SIZE: 0x04, PAGE: 0x08, EOS: 0x10, CONTINUE: 0x20 } as const;
const FLAGS_MASK = 0xfff;
/** flags and instance id, version id */
const SECTION_TAIL_BYTES = 8;

/** Thrown inside when a record is not complete yet. */
const INCOMPLETE = Symbol('incomplete');

export class MigrationStream {
  /** Bytes so far. */
  bytes = 0;
  /** Pages of the guest's memory: with content, and zero. */
  normalPages = 0;
  zeroPages = 0;
  /** RAM is over; device state follows. */
  ramIsOver = false;
  readonly #onPage: OnPage;
  readonly #ramBytes: number;
  #pending: Buffer = Buffer.alloc(0);
  #at = 0;
  #headerSeen = false;
  #inRam = false;
  #ramSection = -1;
  /** The block that records without a name of their own belong to. */
  #block = '';
  #mainBlock = '';

  /** The main block is the one that has the size of the guest's memory. */
  constructor(ramPages: number, onPage: OnPage) {
    this.#ramBytes = ramPages * PAGE_SIZE_BYTES;
    this.#onPage = onPage;
  }

  /** @throws Error at what is no stream of this version. */
  push(chunk: Buffer): void {
    this.bytes += chunk.length;
    if (this.ramIsOver) return;
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    let done = 0;
    try {
      while (!this.ramIsOver) {
        this.#at = done;
        this.#record();
        done = this.#at;
      }
    } catch (error) {
      if (error !== INCOMPLETE) throw error;
    }
    this.#pending = this.#pending.subarray(done);
  }

  /** One record: everything is read before anything changes, so it can begin again. */
  #record(): void {
    if (!this.#headerSeen) this.#header();
    else if (this.#inRam) this.#ramRecord();
    else this.#section();
  }

  #header(): void {
    const magic = this.#u32();
    const version = this.#u32();
    if (magic !== MAGIC || version !== VERSION) throw new Error('no migration stream of QEMU');
    this.#headerSeen = true;
  }

  #section(): void {
    const type = this.#u8();
    switch (type) {
      case Section.CONFIGURATION:
        this.#take(this.#u32());
        return;
      case Section.COMMAND:
        this.#u16();
        this.#take(this.#u16());
        return;
      case Section.FOOTER:
        this.#u32();
        return;
      case Section.START: {
        const id = this.#u32();
        const name = this.#string();
        this.#take(SECTION_TAIL_BYTES);
        if (name !== 'ram') throw new Error(`migration stream: a section ${name} beside ram`);
        this.#ramSection = id;
        this.#inRam = true;
        return;
      }
      case Section.PART:
      case Section.END:
        if (this.#u32() !== this.#ramSection) throw new Error('migration stream: unknown section');
        this.#inRam = true;
        return;
      case Section.FULL:
      case Section.EOF:
        this.ramIsOver = true;
        return;
      default:
        throw new Error(`migration stream: section type ${type}`);
    }
  }

  #ramRecord(): void {
    const word = this.#u64();
    const flags = word & FLAGS_MASK;
    const offset = word - flags;
    if ((flags & RamFlag.EOS) !== 0) {
      this.#inRam = false;
      return;
    }
    if ((flags & RamFlag.MEM_SIZE) !== 0) {
      this.#blockList(offset);
      return;
    }
    const block = (flags & RamFlag.CONTINUE) !== 0 ? this.#block : this.#string();
    if ((flags & RamFlag.ZERO) !== 0) {
      if (this.#u8() !== 0) throw new Error('migration stream: a page filled with other than zero');
      this.#page(block, offset, null);
    } else if ((flags & RamFlag.PAGE) !== 0) {
      this.#page(block, offset, this.#take(PAGE_SIZE_BYTES));
    } else {
      throw new Error(`migration stream: page flags ${flags}`);
    }
  }

  #blockList(totalBytes: number): void {
    const blocks: [name: string, bytes: number][] = [];
    for (let left = totalBytes; left > 0; ) {
      const name = this.#string();
      const bytes = this.#u64();
      blocks.push([name, bytes]);
      left -= bytes;
    }
    const main = blocks.find(([, bytes]) => bytes === this.#ramBytes);
    if (!main) throw new Error('migration stream: no block has the size of the guest memory');
    this.#mainBlock = main[0];
  }

  #page(block: string, offset: number, bytes: Uint8Array | null): void {
    this.#block = block;
    if (block !== this.#mainBlock) return;
    if (bytes) this.normalPages++;
    else this.zeroPages++;
    this.#onPage(offset / PAGE_SIZE_BYTES, bytes);
  }

  #take(lengthBytes: number): Buffer {
    const end = this.#at + lengthBytes;
    if (end > this.#pending.length) throw INCOMPLETE;
    const piece = this.#pending.subarray(this.#at, end);
    this.#at = end;
    return piece;
  }

  #u8(): number {
    return this.#take(1).readUInt8();
  }

  #u16(): number {
    return this.#take(2).readUInt16BE();
  }

  #u32(): number {
    return this.#take(4).readUInt32BE();
  }

  #u64(): number {
    return Number(this.#take(8).readBigUInt64BE());
  }

  #string(): string {
    return this.#take(this.#u8()).toString('latin1');
  }
}

/**
 * A vCPU that writes: QEMU's own log of dirty pages, or KVM's, sees what a vCPU does and nothing of
 * what qtest does. The firmware waits for a command in guest memory, writes one word into each of so
 * many pages, and says that it has.
 */
import { type Gpa, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { QtestClient } from './qtest.ts';

/** The command, four words: whether there is one, first address, pages, value. In memory of nobody. */
const COMMAND_GPA = 0x5000;
const Command = { IS_DUE: 0, FIRST_GPA: 4, PAGES: 8, VALUE: 12 } as const;

/** The firmware ends where the address space of 32 bits does, and is all of a real-mode segment. */
const FIRMWARE_BYTES = 1 << 16;
const FIRMWARE_GPA = 2 ** 32 - FIRMWARE_BYTES;
const RESET_VECTOR = 0xfff0;
const CODE_32_AT = 0x40;
const GDT_AT = 0x100;
const GDTR_AT = 0x120;
const CODE_SELECTOR = 0x08;
const DATA_SELECTOR = 0x10;

/** How long a vCPU may take for one command. */
const STUCK_MS = 5000;
const POLL_PAUSE_MS = 1;

export function writerFirmware(): Uint8Array {
  const firmware = new Uint8Array(FIRMWARE_BYTES).fill(HLT);
  // From the reset vector backwards, within the segment: jmp near.
  firmware.set([0xe9, ...le16(-(RESET_VECTOR + 3))], RESET_VECTOR);
  firmware.set(realMode(), 0);
  firmware.set(protectedMode(), CODE_32_AT);
  firmware.set(GDT.flatMap(le64), GDT_AT);
  firmware.set([...le16(GDT.length * 8 - 1), ...le32(FIRMWARE_GPA + GDT_AT)], GDTR_AT);
  return firmware;
}

const HLT = 0xf4;

/**
 * Nothing, code and data, each flat over 4 GiB. Marked as accessed: the processor would do it
 * otherwise, and the table is in ROM.
 */
const GDT = [0n, 0x00cf9b000000ffffn, 0x00cf93000000ffffn];

function realMode(): number[] {
  return [
    0xfa, // cli
    ...[0x2e, 0x66, 0x0f, 0x01, 0x16, ...le16(GDTR_AT)], // lgdt cs:[GDTR_AT], base of 32 bits
    ...[0x0f, 0x20, 0xc0], // mov eax, cr0
    ...[0x0c, 0x01], // or al, 1: protection
    ...[0x0f, 0x22, 0xc0], // mov cr0, eax
    ...[0x66, 0xea, ...le32(FIRMWARE_GPA + CODE_32_AT), ...le16(CODE_SELECTOR)], // jmp far
  ];
}

function protectedMode(): number[] {
  const setup = [
    ...[0x66, 0xb8, ...le16(DATA_SELECTOR)], // mov ax, data
    ...[0x8e, 0xd8], // mov ds, ax
    ...[0xbe, ...le32(COMMAND_GPA)], // mov esi, command
  ];
  const poll = [
    ...[0xf3, 0x90], // pause
    ...[0x83, 0x3e, 0x00], // cmp dword [esi], 0
    ...[0x74, -7], // je: to pause
    ...[0x8b, 0x7e, Command.FIRST_GPA], // mov edi, [esi + 4]
    ...[0x8b, 0x4e, Command.PAGES], // mov ecx, [esi + 8]
    ...[0x8b, 0x46, Command.VALUE], // mov eax, [esi + 12]
  ];
  const write = [
    ...[0x89, 0x07], // mov [edi], eax
    ...[0x81, 0xc7, ...le32(PAGE_SIZE_BYTES)], // add edi, 4096
    0x49, // dec ecx
    ...[0x75, -11], // jnz: to mov
    ...[0xc7, 0x06, ...le32(0)], // mov dword [esi], 0: done
  ];
  const loopBytes = poll.length + write.length + 2;
  return [...setup, ...poll, ...write, ...[0xeb, -loopBytes]]; // jmp: to pause
}

export class WritingVcpu {
  readonly #qtest: QtestClient;

  constructor(qtest: QtestClient) {
    this.#qtest = qtest;
  }

  /** @throws Error when the vCPU does not answer. */
  async write(firstGpa: Gpa, pages: number, value: number): Promise<void> {
    const qtest = this.#qtest;
    qtest.write32(COMMAND_GPA + Command.FIRST_GPA, firstGpa);
    qtest.write32(COMMAND_GPA + Command.PAGES, pages);
    qtest.write32(COMMAND_GPA + Command.VALUE, value);
    qtest.write32(COMMAND_GPA + Command.IS_DUE, 1);
    const endMs = performance.now() + STUCK_MS;
    while ((await qtest.read32(COMMAND_GPA + Command.IS_DUE)) !== 0) {
      if (performance.now() > endMs) throw new Error(`the vCPU did not write in ${STUCK_MS} ms`);
      await new Promise((resolve) => setTimeout(resolve, POLL_PAUSE_MS));
    }
  }
}

function le16(value: number): number[] {
  return [value & 0xff, (value >> 8) & 0xff];
}

function le32(value: number): number[] {
  return [...le16(value & 0xffff), ...le16(value >>> 16)];
}

function le64(value: bigint): number[] {
  return [...le32(Number(value & 0xffff_ffffn)), ...le32(Number(value >> 32n))];
}

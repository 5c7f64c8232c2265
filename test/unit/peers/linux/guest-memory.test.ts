import { describe, expect, it } from 'vitest';
import { X86Memory } from '../../../../peers/linux/guest-memory.ts';
import { type Message, u32Bytes } from '../../../../protocol/index.ts';
import { Bitmap, PAGE_SIZE_BYTES } from '../../../../shared/index.ts';

const PAGES = 64;

class Bench {
  readonly ram = new Uint8Array(PAGES * PAGE_SIZE_BYTES);
  readonly unused = new Bitmap(PAGES);
  readonly invalidated: number[] = [];
  readonly memory = new X86Memory(
    {
      memory: this.ram,
      memoryBytes: this.ram.length,
      invalidateCode: (gpa, lengthBytes) => void this.invalidated.push(gpa, lengthBytes),
    },
    () => this.unused,
  );

  set(pfn: number, byte: number): void {
    this.ram[pfn * PAGE_SIZE_BYTES] = byte;
  }

  ask(message: Message): Message | null | undefined {
    return this.memory.handle(message);
  }

  read(pfn: number): void {
    this.ask({ name: 'read', ranges: u32Bytes(Uint32Array.of(pfn, 1)) });
  }

  dirty(clear = true): number[] {
    const reply = this.ask({ name: 'getDirtyLog', clear }) as Message<'dirtyLog'>;
    const bits = Bitmap.fromBytes(reply.bits, PAGES);
    return Array.from({ length: PAGES }, (_, pfn) => pfn).filter((pfn) => bits.get(pfn));
  }
}

function logging(): Bench {
  const bench = new Bench();
  bench.set(1, 1);
  bench.ask({ name: 'dirtyLogEnable', enabled: true, initially_set: false, ring_entries: 0 });
  return bench;
}

describe('the dirty log of a real guest', () => {
  it('starts clear and has each page once', () => {
    const bench = logging();
    expect(bench.dirty()).toEqual([]);
    bench.set(3, 7);
    bench.set(5, 7);
    expect(bench.dirty(false)).toEqual([3, 5]);
    expect(bench.dirty()).toEqual([3, 5]);
    expect(bench.dirty()).toEqual([]);
  });

  it('clears the given bits and no others', () => {
    const bench = logging();
    bench.set(3, 7);
    bench.set(40, 7);
    expect(bench.dirty(false)).toEqual([3, 40]);
    bench.ask({ name: 'clearDirtyLog', first_pfn: 32, bits: Uint8Array.of(0, 1, 0, 0) });
    expect(bench.dirty(false)).toEqual([3]);
    bench.set(40, 8);
    expect(bench.dirty()).toEqual([3, 40]);
  });

  it('has a page that was read in between and is again as it was', () => {
    const bench = logging();
    bench.set(1, 2);
    bench.read(1);
    bench.set(1, 1);
    expect(bench.dirty()).toEqual([1]);
  });

  it('has a hinted page that is in use, although it is as it was', () => {
    const bench = logging();
    bench.unused.setRange(8, 4);
    bench.memory.hinted(8, 4);
    expect(bench.dirty()).toEqual([]);
    bench.unused.clear(10);
    expect(bench.dirty()).toEqual([10]);
    expect(bench.dirty()).toEqual([]);
  });
});

describe('memory of a real guest', () => {
  it('is written and given up page by page, and translated code with it', () => {
    const bench = new Bench();
    const data = new Uint8Array(PAGE_SIZE_BYTES).fill(9);
    bench.ask({ name: 'write', ranges: u32Bytes(Uint32Array.of(2, 1)), data });
    expect(bench.ram[2 * PAGE_SIZE_BYTES]).toBe(9);
    bench.ask({ name: 'discard', ranges: u32Bytes(Uint32Array.of(2, 1)) });
    expect(bench.ram[2 * PAGE_SIZE_BYTES]).toBe(0);
    const piece = [2 * PAGE_SIZE_BYTES, PAGE_SIZE_BYTES];
    expect(bench.invalidated).toEqual([...piece, ...piece]);
  });

  it.each([
    { title: 'pages beyond it', ranges: [PAGES - 1, 2] },
    { title: 'half a range', ranges: [1] },
    { title: 'a count that wraps', ranges: [1, 0xffff_ffff] },
  ])('refuses $title', ({ ranges }) => {
    const bench = new Bench();
    const read = (): unknown =>
      bench.ask({ name: 'read', ranges: u32Bytes(Uint32Array.from(ranges)) });
    expect(read).toThrow(expect.objectContaining({ code: 'MESSAGE_INVALID' }));
  });

  it('is no ring outside', () => {
    const { memory, ram } = new Bench();
    expect(memory.map(ram.length - 4, 8)).toBeNull();
    expect(memory.map(-1, 1)).toBeNull();
    expect(memory.map(4, 8)?.length).toBe(8);
  });
});

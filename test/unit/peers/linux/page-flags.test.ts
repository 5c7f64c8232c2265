/** The page allocator's state is read where an i386 kernel keeps it: in a map made by hand here. */
import { describe, expect, it } from 'vitest';
import {
  findMemoryMap,
  freePages,
  isHeldBlock,
  type MemoryMap,
} from '../../../../peers/linux/page-flags.ts';
import { PAGE_SIZE_BYTES } from '../../../../shared/index.ts';

const PAGES = 128;
const BASE = 3 * PAGE_SIZE_BYTES;
const BUDDY = 0xffffff7f;
const TABLE = 0xfffffbff;
const NO_TYPE = 0xffffffff;
/** Which 32-bit word of struct page holds what. */
const WORDS = { head: 1, order: 5, type: 6, references: 7 };
const HELD = { firstPfn: 32, pageCount: 16 };

class Kernel {
  readonly ram = new Uint8Array(PAGES * PAGE_SIZE_BYTES);
  readonly map: MemoryMap;
  readonly #words = new Uint32Array(this.ram.buffer);

  constructor(structBytes: number) {
    this.map = { base: BASE, structBytes };
    for (let pfn = 0; pfn < PAGES; pfn++) this.set(pfn, { type: NO_TYPE, references: 1 });
  }

  set(pfn: number, page: Partial<Record<keyof typeof WORDS, number>>): void {
    const at = (this.map.base + pfn * this.map.structBytes) >>> 2;
    for (const [name, value] of Object.entries(page)) {
      this.#words[at + WORDS[name as keyof typeof WORDS]] = value;
    }
  }

  block(firstPfn: number, order: number): void {
    for (let i = 0; i < 1 << order; i++) {
      this.set(firstPfn + i, { type: NO_TYPE, references: 0 });
    }
    this.set(firstPfn, { type: BUDDY, order });
  }

  /** As alloc_pages gives it out. */
  hold(): void {
    const { firstPfn, pageCount } = HELD;
    for (let i = 0; i < pageCount; i++) {
      this.set(firstPfn + i, { type: NO_TYPE, references: i === 0 ? 1 : 0 });
    }
  }

  isHeld(): boolean {
    return isHeldBlock(this.ram, this.map, HELD.firstPfn, HELD.pageCount);
  }
}

describe.each([32, 40])('the memory map of a kernel, %i bytes a page', (structBytes) => {
  it('is found by its free blocks, and has their pages', () => {
    const kernel = new Kernel(structBytes);
    const blocks = [
      [8, 3],
      [20, 2],
      [26, 1],
      [29, 0],
      [48, 4],
      [66, 1],
      [70, 0],
      [72, 3],
      [96, 5],
    ] as const;
    for (const [firstPfn, order] of blocks) kernel.block(firstPfn, order);
    expect(findMemoryMap(kernel.ram)).toEqual(kernel.map);
    const free = freePages(kernel.ram, kernel.map);
    const expected = blocks.flatMap(([firstPfn, order]) =>
      Array.from({ length: 1 << order }, (_, i) => firstPfn + i),
    );
    expect(Array.from({ length: PAGES }, (_, pfn) => pfn).filter((pfn) => free.get(pfn))).toEqual(
      expected,
    );
  });

  it('is none where nothing is free', () => {
    expect(findMemoryMap(new Kernel(structBytes).ram)).toBeNull();
  });

  it('has a block that the driver holds', () => {
    const kernel = new Kernel(structBytes);
    kernel.hold();
    expect(kernel.isHeld()).toBe(true);
  });

  it.each([
    { title: 'it is free again', change: (k: Kernel) => k.block(32, 4) },
    { title: 'its first page is shared', change: (k: Kernel) => k.set(32, { references: 2 }) },
    { title: 'its first page is a page table', change: (k: Kernel) => k.set(32, { type: TABLE }) },
    // A page of the page cache looks as the first page of a held block does.
    { title: 'its first page is alone in use', change: (k: Kernel) => k.block(40, 3) },
    { title: 'a later page is in use', change: (k: Kernel) => k.set(47, { references: 1 }) },
    { title: 'a later page is a page table', change: (k: Kernel) => k.set(47, { type: TABLE }) },
    { title: 'it is compound', change: (k: Kernel) => k.set(33, { head: 0xc0004000 | 1 }) },
  ])('has none when $title', ({ change }) => {
    const kernel = new Kernel(structBytes);
    kernel.hold();
    change(kernel);
    expect(kernel.isHeld()).toBe(false);
  });
});

/**
 * Which frames the guest's page allocator has: read in its memory map, where /proc/kpageflags takes
 * KPF_BUDDY from. Reading costs the guest no time and changes nothing, so it can be done between any
 * two instructions. The tests hold it against what the kernel itself says.
 */
import { Bitmap, PAGE_SIZE_BYTES } from '../../shared/index.ts';

/** page_type of a free block's first page: all bits but PG_buddy. */
const BUDDY_TYPE = 0xffffff7f;
/** page_type of a page that the balloon has (PageOffline): all bits but PG_offline. */
const OFFLINE_TYPE = 0xfffffeff;
/** MAX_ORDER − 1. */
const ORDER_MAX = 10;
/** struct page of an i386 kernel: with or without the owner of its memory control group, aligned. */
const STRUCT_SIZES = [32, 40] as const;
/** Where `private` (the order) and `page_type` lie in it, bytes. */
const PRIVATE_OFFSET = 20;
const TYPE_OFFSET = 24;
/** So many blocks must fit before a place is believed. */
const BLOCKS_MIN = 8;

export interface MemoryMap {
  /** Byte position of frame 0's struct page in RAM. */
  readonly base: number;
  readonly structBytes: number;
}

/**
 * Finds mem_map in RAM: the place and size for which every free block is aligned as its order
 * demands and ends before the next one begins. Null: no kernel's page allocator is in there.
 */
export function findMemoryMap(memory: Uint8Array): MemoryMap | null {
  const words = new Uint32Array(memory.buffer, memory.byteOffset, memory.length >>> 2);
  const pages = memory.length / PAGE_SIZE_BYTES;
  const hits: number[] = [];
  for (let i = TYPE_OFFSET >>> 2; i < words.length; i++) {
    if (words[i] === BUDDY_TYPE && words[i - 1]! <= ORDER_MAX) hits.push(i * 4 - TYPE_OFFSET);
  }
  let best: MemoryMap | null = null;
  let bestBlocks = BLOCKS_MIN - 1;
  for (const structBytes of STRUCT_SIZES) {
    for (const base of candidateBases(hits, structBytes, pages)) {
      const map = { base, structBytes };
      const blocks = countBlocks(words, map, hits, pages);
      if (blocks > bestBlocks) {
        best = map;
        bestBlocks = blocks;
      }
    }
  }
  return best;
}

/** The map begins on a page boundary, since it is allocated as a whole at boot. */
function candidateBases(hits: readonly number[], structBytes: number, pages: number): Set<number> {
  const bases = new Set<number>();
  const [first] = hits;
  if (first === undefined) return bases;
  for (const hit of hits) {
    for (let base = hit - (hit % PAGE_SIZE_BYTES); base >= 0; base -= PAGE_SIZE_BYTES) {
      if (hit - base >= pages * structBytes) break;
      if ((hit - base) % structBytes === 0) bases.add(base);
    }
    if (bases.size > 0 && hit - first > pages * structBytes) break;
  }
  return bases;
}

/** Free blocks that this place would make sound, or 0 if it makes any unsound. */
function countBlocks(
  words: Uint32Array,
  { base, structBytes }: MemoryMap,
  hits: readonly number[],
  pages: number,
): number {
  let blocks = 0;
  let end = 0;
  for (const hit of hits) {
    const offset = hit - base;
    if (offset < 0 || offset >= pages * structBytes) continue;
    if (offset % structBytes !== 0) return 0;
    const pfn = offset / structBytes;
    const order = words[(hit + PRIVATE_OFFSET) >>> 2]!;
    if (pfn % (1 << order) !== 0 || pfn < end || pfn + (1 << order) > pages) return 0;
    end = pfn + (1 << order);
    blocks++;
  }
  return blocks;
}

/** Every page of every free block. */
export function freePages(memory: Uint8Array, { base, structBytes }: MemoryMap): Bitmap {
  const words = new Uint32Array(memory.buffer, memory.byteOffset, memory.length >>> 2);
  const free = new Bitmap(memory.length / PAGE_SIZE_BYTES);
  for (let pfn = 0; pfn < free.bitCount; ) {
    const at = base + pfn * structBytes;
    const order = words[(at + PRIVATE_OFFSET) >>> 2]!;
    if (words[(at + TYPE_OFFSET) >>> 2] !== BUDDY_TYPE || order > ORDER_MAX) {
      pfn++;
      continue;
    }
    free.setRange(pfn, Math.min(1 << order, free.bitCount - pfn));
    pfn += 1 << order;
  }
  return free;
}

/** Pages that the kernel has given to the hypervisor. */
export function offlinePages(memory: Uint8Array, { base, structBytes }: MemoryMap): Bitmap {
  const words = new Uint32Array(memory.buffer, memory.byteOffset, memory.length >>> 2);
  const offline = new Bitmap(memory.length / PAGE_SIZE_BYTES);
  for (let pfn = 0; pfn < offline.bitCount; pfn++) {
    if (words[(base + pfn * structBytes + TYPE_OFFSET) >>> 2] === OFFLINE_TYPE) offline.set(pfn);
  }
  return offline;
}

/** Where the mapping count (no page type), the reference count and a tail's head lie, bytes. */
const REFCOUNT_OFFSET = 28;
const COMPOUND_HEAD_OFFSET = 4;
const NO_TYPE = 0xffffffff;

/**
 * Allocated in one piece, not compound, and mapped nowhere: what the balloon driver holds for hinting
 * looks like. One reference is on the first page, and none on the others; a block that was given
 * back has other owners or free blocks in it, whatever became of its first page.
 */
export function isHeldBlock(
  memory: Uint8Array,
  { base, structBytes }: MemoryMap,
  firstPfn: number,
  pageCount: number,
): boolean {
  const words = new Uint32Array(memory.buffer, memory.byteOffset, memory.length >>> 2);
  for (let i = 0; i < pageCount; i++) {
    const at = base + (firstPfn + i) * structBytes;
    if (words[(at + REFCOUNT_OFFSET) >>> 2] !== (i === 0 ? 1 : 0)) return false;
    if (words[(at + TYPE_OFFSET) >>> 2] !== NO_TYPE) return false;
    if (i > 0 && (words[(at + COMPOUND_HEAD_OFFSET) >>> 2]! & 1) !== 0) return false;
  }
  return true;
}

import { Bitmap } from '../../shared/index.ts';
import type { Recording } from '../../shared/recording/index.ts';
import { type MigrateType, PAGEBLOCK_NR_PAGES, type PageAllocator } from '../mm/index.ts';
import { type Ram, tagOfFill } from './ram.ts';

/** Frames below this stay the kernel's in a machine without a recording: image, tables, memmap. */
const KERNEL_SHARE_DIVISOR = 16;

/** The machine as the recording found it: who owns each frame, and what is in it. */
export function applyRecording(recording: Recording, mm: PageAllocator, ram: Ram): void {
  const { start } = recording;
  start.pageblockMigratetype.forEach((type, pageblock) => {
    mm.setMigratetype(pageblock, type as MigrateType);
  });
  mm.adoptFreeSet(start.free, start.onPcp, start.reserved);
  for (let pfn = 0; pfn < ram.pageCount; pfn++) {
    ram.setInitial(pfn, start.zero.get(pfn), start.neverTouched.get(pfn));
  }
  fillFreePages(mm, ram);
}

/**
 * A freshly booted machine: the kernel's own frames hold data, all others are free and hold what the
 * kernel fills freed pages with, or zeroes that no one has touched.
 */
export function applyFreshBoot(mm: PageAllocator, ram: Ram): void {
  const kernelPages =
    Math.ceil(ram.pageCount / KERNEL_SHARE_DIVISOR / PAGEBLOCK_NR_PAGES) * PAGEBLOCK_NR_PAGES;
  const free = new Bitmap(ram.pageCount);
  free.setRange(kernelPages, ram.pageCount - kernelPages);
  mm.adoptFreeSet(free);
  for (let pfn = 0; pfn < kernelPages; pfn++) ram.setInitial(pfn, false, false);
  fillFreePages(mm, ram);
}

/** What is free was filled by this kernel at boot or since, whatever a recorded one left in it. */
function fillFreePages(mm: PageAllocator, ram: Ram): void {
  if (mm.freedContent === null) return;
  const free = new Bitmap(ram.pageCount);
  mm.writeFreeSet(free);
  const tag = tagOfFill(mm.freedContent);
  for (let start = free.nextSet(0); start >= 0; ) {
    const end = free.nextClear(start);
    ram.fill(start, end - start, tag);
    start = free.nextSet(end);
  }
}

/** Where the recorded machine had RAM: pairs of first frame and count. */
export function ramSegmentsOf(recording: Recording | null, ramPages: number): Uint32Array {
  if (!recording) return Uint32Array.of(0, ramPages);
  const { noPage } = recording.start;
  const pairs: number[] = [];
  for (let start = noPage.nextClear(0); start < ramPages; ) {
    const hole = noPage.nextSet(start);
    const end = hole < 0 ? ramPages : hole;
    pairs.push(start, end - start);
    start = noPage.nextClear(end);
  }
  return Uint32Array.from(pairs);
}

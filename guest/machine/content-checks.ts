/**
 * What the guest finds by itself: pages that hold something else than whoever relies on them expects.
 * Poison is checked when a page is handed out, as Linux does (page_poison); with init_on_free the
 * page is handed out as zeroed; programs compare what they read with what they wrote.
 */
import { Bitmap, type Pfn } from '../../shared/index.ts';
import type { ContentReader } from '../kernel/content-reader.ts';
import type { PageAllocator } from '../mm/index.ts';
import { type Ram, tagOfFill } from './ram.ts';

/** Of an audit that does not look at what pages hold. */
export const ANY_CONTENT: ContentReader = () => true;

export class ContentChecks {
  /** Pages found; one that is found again as it was does not count again. */
  corruptions = 0;
  /** What each of them held when it was found. */
  readonly #found = new Map<Pfn, number>();
  readonly #ram: Pick<Ram, 'tags'>;

  constructor(ram: Pick<Ram, 'tags'>) {
    this.#ram = ram;
  }

  /** These pages are handed out as holding `tag`. */
  trusted(pfn: Pfn, pageCount: number, tag: number): void {
    for (let i = pfn; i < pfn + pageCount; i++) this.read(i, tag);
  }

  /** Somebody reads a page and relies on its holding `tag`. Returns whether it does. */
  read(pfn: Pfn, tag: number): boolean {
    const found = this.#ram.tags[pfn]!;
    if (found === tag) return true;
    if (this.#found.get(pfn) !== found) {
      this.#found.set(pfn, found);
      this.corruptions++;
    }
    return false;
  }
}

/** Empty when each free page holds what the next allocation takes it to hold. */
export function auditFreedContent({ mm, ram }: { mm: PageAllocator; ram: Ram }): string[] {
  if (mm.freedContent === null) return [];
  const expected = tagOfFill(mm.freedContent);
  const free = new Bitmap(ram.pageCount);
  mm.writeFreeSet(free);
  let count = 0;
  let first = -1;
  for (let pfn = free.nextSet(0); pfn >= 0; pfn = free.nextSet(pfn + 1)) {
    if (ram.tags[pfn] === expected) continue;
    if (count++ === 0) first = pfn;
  }
  if (count === 0) return [];
  const what = mm.freedContent === 'poison' ? 'the poison' : 'the zeroes';
  return [
    `${count} free pages do not hold ${what} that the next allocation relies on, the first is frame ${first}`,
  ];
}

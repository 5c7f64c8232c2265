/** Whole-state audit of a zsmalloc-like pool: says in words what does not hold. */
import type { Pfn } from '../../shared/index.ts';
import type { ContentReader } from '../kernel/content-reader.ts';
import { PageFlag, PageOwner, type Pages } from '../mm/index.ts';
import type { FrameWords } from './frame-words.ts';
import type { SizeClass } from './size-class.ts';
import { NO_HANDLE, type ObjectLocation, type Zspage } from './zspage.ts';

/** What is looked at of a pool. */
export interface AuditedPool {
  readonly classes: readonly SizeClass<Zspage>[];
  /** Of each handle. */
  readonly locations: ReadonlyMap<number, ObjectLocation>;
  readonly words: FrameWords;
  /** The zspage that a page says it is of. */
  zspageOf(pfn: Pfn): Zspage | undefined;
}

export function auditZspool(pool: AuditedPool, pages: Pages, holds: ContentReader): string[] {
  const problems: string[] = [];
  let objects = 0;
  for (const sizeClass of pool.classes) {
    for (const zspage of sizeClass.zspages()) {
      problems.push(...auditPages(pool, pages, zspage, holds), ...auditObjects(pool, zspage));
      objects += zspage.inUse;
    }
  }
  if (objects !== pool.locations.size) {
    problems.push(`${objects} objects are in use, there are ${pool.locations.size} handles`);
  }
  return problems;
}

function auditPages(
  pool: AuditedPool,
  pages: Pages,
  zspage: Zspage,
  holds: ContentReader,
): string[] {
  const problems: string[] = [];
  for (const pfn of zspage.pfns) {
    const isOurs = pages.owner[pfn] === PageOwner.ZSMALLOC && pages.hasFlag(pfn, PageFlag.MOVABLE);
    if (pages.isFree(pfn) || !isOurs) problems.push(`page ${pfn} of a zspage is not the pool’s`);
    else if (pool.zspageOf(pfn) !== zspage) problems.push(`page ${pfn} is of another zspage`);
    const content = pool.words.audit(pfn, holds);
    if (content !== null) problems.push(content);
  }
  return problems;
}

function auditObjects(pool: AuditedPool, zspage: Zspage): string[] {
  const problems: string[] = [];
  const { sizeClass, pfns } = zspage;
  let inUse = 0;
  for (const [object, handle] of zspage.handles.entries()) {
    if (handle === NO_HANDLE) continue;
    inUse++;
    const location = pool.locations.get(handle);
    const pfn = pfns[sizeClass.firstPageOf(object)]!;
    if (location?.object !== object || location.pfn !== pfn) {
      problems.push(`handle ${handle} names page ${location?.pfn}, its object is in page ${pfn}`);
    }
    const last = pfns[sizeClass.lastPageOf(object)]!;
    if (pool.words.read(pfn, object) !== pool.words.read(last, object)) {
      problems.push(`the parts of object ${handle} in pages ${pfn} and ${last} differ`);
    }
  }
  if (inUse !== zspage.inUse || inUse === 0) {
    problems.push(`a zspage has ${inUse} objects, counted ${zspage.inUse}`);
  }
  return problems;
}

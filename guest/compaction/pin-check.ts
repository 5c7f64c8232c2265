/**
 * Whether a page is looked at for pins before it is isolated. Racy on purpose: a page that is left
 * out in error stays where it is, one that is taken in error fails to migrate. The settings are what
 * Linux does, and what was proposed in its place (docs/compaction.md has the numbers).
 */
import type { PinCheck } from '../../protocol/control.ts';
import type { Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import { MigrateType, ZoneType } from '../mm/index.ts';

/** True: migration would fail, so that the page is better left alone. Nobody holds it for the check. */
export type IsPinned = (pfn: Pfn) => boolean;

/** `anonymous` is all that Linux does; the other two look at pages of files, too. */
export function pinCheckOf(setting: PinCheck, folios: Folios): IsPinned {
  const { pages, mappings, mm } = folios;
  const { pageblocks } = mm;
  const movable = mm.zones[ZoneType.MOVABLE]!;
  /** Where no long-term pin is allowed, a pin will go away. */
  const isExempt = (pfn: Pfn): boolean =>
    pfn >= movable.startPfn || pageblocks.typeOf(pfn) === MigrateType.CMA;
  switch (setting) {
    case 'anonymous':
      return (pfn) =>
        pages.refcount[pfn]! > pages.mapcount[pfn]! && mappings.of(pfn)?.cacheReferences !== 1;
    case 'extra_refs':
      return (pfn) =>
        pages.refcount[pfn]! - (mappings.of(pfn)?.cacheReferences ?? 0) > pages.mapcount[pfn]! &&
        !isExempt(pfn);
    case 'maybe_dma_pinned':
      return (pfn) => pages.maybeDmaPinned(pfn) && !isExempt(pfn);
  }
}

import { describe, expect, test } from 'vitest';
import {
  Gfp,
  gfpFromText,
  highestZoneOf,
  migratetypeOf,
  ZoneType,
} from '../../../../guest/mm/index.ts';
import { zoneBatchPages } from '../../../../guest/mm/pcp.ts';
import { defaultMinFreeKbytes, layOutZones, setUpWatermarks } from '../../../../guest/mm/zone.ts';

const GIB_PAGES = 1 << 18;

describe('zones', () => {
  test.each([
    { id: '8 MiB', ramPages: 2048, movable: 0, ends: [2048, 2048, 2048, 2048] },
    { id: '1 GiB', ramPages: GIB_PAGES, movable: 0, ends: [4096, GIB_PAGES, GIB_PAGES, GIB_PAGES] },
    {
      id: '6 GiB',
      ramPages: 6 * GIB_PAGES,
      movable: 0,
      ends: [4096, 1 << 20, 6 * GIB_PAGES, 6 * GIB_PAGES],
    },
    {
      id: '6 GiB, 3 movable',
      ramPages: 6 * GIB_PAGES,
      movable: 3 * GIB_PAGES,
      ends: [4096, 3 * GIB_PAGES, 3 * GIB_PAGES, 6 * GIB_PAGES],
    },
  ])('$id is laid out as x86-64 does', ({ ramPages, movable, ends }) => {
    expect(layOutZones(ramPages, movable).map((zone) => zone.endPfn)).toEqual(ends);
  });

  test.each([
    { pages: 64, kbytes: 128 },
    { pages: GIB_PAGES, kbytes: 4096 },
    { pages: 16 * GIB_PAGES, kbytes: 16384 },
    { pages: 8192 * GIB_PAGES, kbytes: 262_144 },
  ])('min_free_kbytes of $pages pages is $kbytes', ({ pages, kbytes }) => {
    expect(defaultMinFreeKbytes(layOutZones(pages, 0))).toBe(kbytes);
  });

  test('watermarks share min_free_kbytes by managed pages', () => {
    const zones = layOutZones(GIB_PAGES, 0);
    setUpWatermarks(zones, 4096);
    expect([...zones[ZoneType.DMA]!.watermarkPages]).toEqual([16, 20, 24]);
    expect([...zones[ZoneType.DMA32]!.watermarkPages]).toEqual([1008, 1266, 1524]);
    expect([...zones[ZoneType.DMA]!.lowmemReservePages]).toEqual([0, 1008, 1008, 1008]);
    expect([...zones[ZoneType.DMA32]!.lowmemReservePages]).toEqual([0, 0, 0, 0]);
  });

  test.each([
    [3840, 1],
    [258_048, 63],
    [1 << 24, 63],
  ])('the per-CPU batch of a zone of %i pages is %i', (managed, batch) => {
    expect(zoneBatchPages(managed)).toBe(batch);
  });
});

describe('gfp', () => {
  test.each([
    ['GFP_KERNEL|__GFP_ZERO', Gfp.GFP_KERNEL | Gfp.__GFP_ZERO, 0, ZoneType.NORMAL],
    [
      'GFP_HIGHUSER_MOVABLE|__GFP_COMP',
      Gfp.GFP_HIGHUSER_MOVABLE | Gfp.__GFP_COMP,
      1,
      ZoneType.MOVABLE,
    ],
    ['GFP_NOFS|__GFP_RECLAIMABLE', Gfp.GFP_NOFS | Gfp.__GFP_RECLAIMABLE, 2, ZoneType.NORMAL],
    ['GFP_KERNEL|GFP_DMA32', Gfp.GFP_KERNEL | Gfp.__GFP_DMA32, 0, ZoneType.DMA32],
    ['__GFP_NO_SUCH|0x1', Gfp.__GFP_DMA, 0, ZoneType.DMA],
  ])('%s gives its mask, migrate type and zone', (text, mask, type, zone) => {
    expect([gfpFromText(text), migratetypeOf(mask), highestZoneOf(mask)]).toEqual([
      mask,
      type,
      zone,
    ]);
  });
});

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { freePagesByOrder, inspectRecording } from '../../../../lab/recording/inspect.ts';
import { renderInspection } from '../../../../lab/recording/inspection-table.ts';
import { Bitmap } from '../../../../shared/index.ts';
import { readRecording } from '../../../../shared/recording/index.ts';

describe('free memory by order', () => {
  test('is cut into the largest aligned blocks', () => {
    const free = new Bitmap(4096);
    free.setRange(1, 7);
    free.setRange(1024, 1024 + 512);
    expect(freePagesByOrder(free)).toEqual([1, 2, 4, 0, 0, 0, 0, 0, 0, 512, 1024]);
  });

  test('equals merging buddies one order at a time', () => {
    const bits = fc.array(fc.nat(255), { maxLength: 256 });
    const runs = fc.array(fc.tuple(fc.nat(255), fc.nat(64)), { maxLength: 8 });
    fc.assert(
      fc.property(bits, runs, (setBits, setRuns) => {
        const free = new Bitmap(256);
        for (const bit of setBits) free.set(bit);
        for (const [start, count] of setRuns) free.setRange(start, Math.min(count, 256 - start));
        expect(freePagesByOrder(free)).toEqual(mergeBuddies(free));
      }),
    );
  });
});

/** The slow way, as an allocator does it. */
function mergeBuddies(free: Bitmap): number[] {
  const pagesByOrder: number[] = [];
  let blocks = new Set<number>();
  for (let pfn = 0; pfn < free.bitCount; pfn++) if (free.get(pfn)) blocks.add(pfn);
  for (let order = 0; order <= 10; order++) {
    const size = 1 << order;
    const merged = new Set<number>();
    let left = 0;
    for (const pfn of blocks) {
      const buddy = pfn ^ size;
      if (order < 10 && blocks.has(buddy)) merged.add(Math.min(pfn, buddy));
      else left++;
    }
    pagesByOrder.push(left * size);
    blocks = merged;
  }
  return pagesByOrder;
}

describe('the recording idle-1g', () => {
  const path = new URL('../../../../scenarios/recordings/idle-1g.ballast', import.meta.url);
  const recording = readRecording(path.pathname);
  const inspection = inspectRecording(recording);

  test('holds what the guest did', () => {
    expect(inspection.events).toEqual({ count: 384_944, allocs: 205_310, frees: 179_634 });
    expect(inspection.header.consistency).toMatchObject({
      onPcpPages: 986,
      doubleAllocPages: 0,
      doubleFreePages: 0,
      batchedWithoutFree: 0,
      endMismatchPages: 734,
    });
    expect(inspection.measured.map((run) => run.total_ms)).toEqual([3920, 3921, 1006, 1009]);
  });

  test('has samples up to both marks, and ends as free as kpageflags says', () => {
    const { freeByOrder } = inspection;
    const marks = freeByOrder.map(({ mark }) => mark).filter((mark) => mark !== null);
    expect(marks).toEqual(['migrate', 'migrated']);
    const last = freeByOrder.at(-1)!;
    expect(Math.abs(last.freePages - recording.freeAtEnd.count())).toBeLessThanOrEqual(734);
    const atMark = freeByOrder.find(({ mark }) => mark === 'migrate');
    expect(atMark?.freePages).toBe(inspection.pages.freeAtMigrate);
  });

  test('predicts QEMU within 0.5 %: what is not zero is sent', () => {
    const sent = recording.header.frameCount - inspection.pages.zeroAtMigrate;
    expect(Math.abs(sent / 204_260 - 1)).toBeLessThan(0.005);
  });

  test('prints tables of at most 100 columns', () => {
    const lines = renderInspection(inspection).split('\n');
    expect(lines.filter((line) => line.length > 100)).toEqual([]);
    expect(lines.some((line) => line.includes('205310 allocations, 179634 frees'))).toBe(true);
    expect(lines.some((line) => /\bmigrate$/.test(line.trimEnd()))).toBe(true);
  });
});

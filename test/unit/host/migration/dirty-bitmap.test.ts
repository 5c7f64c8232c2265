import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DirtyBitmap } from '../../../../host/migration/dirty-bitmap.ts';
import { Bitmap } from '../../../../shared/index.ts';

const PAGES = 200;
const log = fc.array(fc.nat(PAGES - 1), { maxLength: 60 });

function bitmapOf(pfns: readonly number[], pageCount = PAGES): Bitmap {
  const bitmap = new Bitmap(pageCount);
  for (const pfn of pfns) bitmap.set(pfn);
  return bitmap;
}

function allOf(pageCount: number): Bitmap {
  const bitmap = new Bitmap(pageCount);
  bitmap.setAll();
  return bitmap;
}

describe('the migration bitmap', () => {
  test('begins with every page dirty', () => {
    const dirty = new DirtyBitmap(allOf(PAGES));
    expect([dirty.dirtyPages, dirty.bits.count()]).toEqual([PAGES, PAGES]);
  });

  test('leaves out the frames that hold no RAM', () => {
    const ram = allOf(PAGES);
    ram.clearRange(50, 10);
    const dirty = new DirtyBitmap(ram);
    expect([dirty.dirtyPages, dirty.bits.get(50), dirty.bits.get(60)]).toEqual([
      PAGES - 10,
      false,
      true,
    ]);
  });

  test('always counts exactly its set bits', () => {
    const step = fc.oneof(
      fc.record({ clear: fc.nat(PAGES - 1) }),
      fc.record({ sync: log }),
      fc.record({ clearAllBelow: fc.nat(PAGES) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const dirty = new DirtyBitmap(allOf(PAGES));
        for (const one of steps) {
          const before = dirty.bits.count();
          if ('sync' in one) {
            const added = dirty.sync(bitmapOf(one.sync));
            expect(dirty.bits.count() - before).toBe(added);
          } else {
            const [from, to] = 'clear' in one ? [one.clear, one.clear + 1] : [0, one.clearAllBelow];
            for (let pfn = from; pfn < to; pfn++) if (dirty.bits.get(pfn)) dirty.clear(pfn);
          }
          expect(dirty.dirtyPages).toBe(dirty.bits.count());
        }
      }),
    );
  });

  test('refuses to take out a page that is not in it', () => {
    const dirty = new DirtyBitmap(allOf(PAGES));
    dirty.clear(3);
    expect(() => dirty.clear(3)).toThrow('was dirty');
  });
});

import { describe, expect, test } from 'vitest';
import { Ram } from '../../../../guest/machine/ram.ts';
import { InPlaceDirty } from '../../../../guest/workload/in-place.ts';
import { NS_PER_S, Prng } from '../../../../shared/index.ts';

const SET_PAGES = 100;
const GAP_NS = 1_000_000;

function workload(pagesPerSecond = 1000) {
  const ram = new Ram(1024);
  const inPlace = new InPlaceDirty(
    { pagesPerSecond, setPages: SET_PAGES, frameCount: 1024 },
    { ram, prng: new Prng(1) },
  );
  return { ram, inPlace };
}

describe('rewriting in place', () => {
  test('begins when the set is complete, and keeps its rate', () => {
    const { inPlace } = workload();
    for (let pfn = 0; pfn < SET_PAGES - 1; pfn++) inPlace.onUserPage(pfn, true);
    expect(inPlace.nextAt(7)).toBe(Number.POSITIVE_INFINITY);
    inPlace.onUserPage(SET_PAGES - 1, true);
    expect(inPlace.nextAt(7)).toBe(5000);
    inPlace.advance(7, 100 * GAP_NS);
    expect(Math.abs(inPlace.counters.in_place_writes - 100)).toBeLessThanOrEqual(1);
  });

  test('writes live pages only, all over the set', () => {
    const { inPlace, ram } = workload();
    for (let pfn = 0; pfn < SET_PAGES + 5; pfn++) inPlace.onUserPage(pfn, true);
    for (let pfn = 10; pfn < 15; pfn++) inPlace.onUserPage(pfn, false);
    inPlace.onUserPage(700, false);
    inPlace.nextAt(0);
    inPlace.advance(0, 2000 * GAP_NS);
    const written = [...ram.tags.keys()].filter((pfn) => ram.tags[pfn] !== 0);
    expect(written.length).toBe(SET_PAGES);
    expect(written.some((pfn) => pfn >= SET_PAGES + 5 || (pfn >= 10 && pfn < 15))).toBe(false);
  });

  test('makes good what it was held up, never two writes at once', () => {
    const { inPlace } = workload();
    for (let pfn = 0; pfn < SET_PAGES; pfn++) inPlace.onUserPage(pfn, true);
    inPlace.nextAt(0);
    const heldUntil = 50 * GAP_NS;
    const first = inPlace.nextAt(heldUntil);
    expect(first).toBe(heldUntil);
    inPlace.advance(heldUntil, heldUntil);
    expect(inPlace.counters.in_place_writes).toBe(1);
    inPlace.advance(heldUntil, heldUntil + GAP_NS);
    expect(inPlace.counters.in_place_writes).toBeGreaterThan(50);
  });

  test.each([0, Number.MIN_VALUE, 1e-9])('at %f pages a second comes to an end', (rate) => {
    const { inPlace, ram } = workload(rate);
    ram.write = () => {
      // A loop without end is a failure, and not a test without end.
      if (inPlace.counters.in_place_writes > 10) throw new Error('it writes for ever');
    };
    for (let pfn = 0; pfn < SET_PAGES; pfn++) inPlace.onUserPage(pfn, true);
    expect(inPlace.nextAt(0)).toBe(5000);
    inPlace.advance(0, 3600 * NS_PER_S);
    expect(inPlace.counters.in_place_writes).toBe(1);
    expect(inPlace.nextAt(0)).toBeGreaterThan(3600 * NS_PER_S);
  });
});

import { describe, expect, test } from 'vitest';
import { Ram } from '../../../../guest/machine/ram.ts';
import {
  findMemmap,
  KernelTicks,
  memmapPageOf,
  workingSetOf,
} from '../../../../guest/workload/kernel-pages.ts';
import { NS_PER_MS } from '../../../../shared/index.ts';
import { type TinyEvent, tinyRecording } from '../../../support/tiny-recording.ts';

const FRAMES = 4096;
/** 64 bytes for each of 4096 frames. */
const MEMMAP_PAGES = 64;
const TICK_NS = 4 * NS_PER_MS;

function recording(events: TinyEvent[] = []) {
  return tinyRecording({ frameCount: FRAMES, free: [[1024, 1024]], events });
}

describe('the memmap', () => {
  type Ranges = readonly (readonly [pfn: number, pageCount: number])[];
  const none: Ranges = [];
  test.each<[string, Ranges, Ranges, number]>([
    ['is in the only reserved run', [[100, MEMMAP_PAGES]], none, 100],
    ['is at the top of a longer run', [[100, 200]], none, 300 - MEMMAP_PAGES],
    [
      'is in the highest run that is long enough',
      [
        [100, 64],
        [2500, 64],
        [3000, 63],
      ],
      none,
      2500,
    ],
    ['is at the very top', [[FRAMES - MEMMAP_PAGES, MEMMAP_PAGES]], none, FRAMES - MEMMAP_PAGES],
    ['is at the very bottom', [[0, MEMMAP_PAGES]], none, 0],
    [
      'is nowhere where runs are too short',
      [
        [100, 63],
        [164, 63],
      ],
      none,
      -1,
    ],
    [
      'is not in a hole',
      [
        [100, 64],
        [2500, 100],
      ],
      [[2540, 100]],
      100,
    ],
  ])('%s', (_what, reserved, holes, expected) => {
    const tiny = recording();
    for (const [pfn, pageCount] of reserved) tiny.start.reserved.setRange(pfn, pageCount);
    for (const [pfn, pageCount] of holes) tiny.start.noPage.setRange(pfn, pageCount);
    expect(findMemmap(tiny)).toBe(expected);
  });

  test('has one page for each 64 frames', () => {
    expect([0, 63, 64, 4095].map((pfn) => memmapPageOf(500, pfn))).toEqual([500, 500, 501, 563]);
  });
});

describe('the working set', () => {
  test('is 80 frames of the kernel, evenly spread', () => {
    const set = workingSetOf(recording());
    expect(set.length).toBe(80);
    expect(new Set(set).size).toBe(80);
    expect([set[0], set[1], set.at(-1)! > 3900]).toEqual([0, 38, true]);
  });

  test.each([
    ['fewer, where the kernel has fewer', 8, 8],
    ['empty, where it has none', 0, 0],
  ])('is %s', (_what, kernelPages, expected) => {
    const tiny = recording();
    tiny.start.reserved.setRange(0, FRAMES - kernelPages);
    expect(workingSetOf(tiny).length).toBe(expected);
  });

  test('has no frame that is free, reserved, zero, on a per-CPU list or in the trace', () => {
    const tiny = recording([
      { atNs: 0, kind: 'free', pfn: 2560, order: 9 },
      { atNs: 1, kind: 'alloc', pfn: 3072, order: 9 },
    ]);
    tiny.start.reserved.setRange(0, 512);
    tiny.start.onPcp.setRange(512, 256);
    // The free frames of this machine hold data.
    tiny.start.zero.clearAll();
    tiny.start.zero.setRange(768, 128);
    const allowed = (pfn: number) =>
      (pfn >= 896 && pfn < 1024) || (pfn >= 2048 && pfn < 2560) || pfn >= 3584;
    const set = workingSetOf(tiny);
    expect(set.length).toBe(80);
    expect(set.filter((pfn) => !allowed(pfn))).toEqual([]);
  });
});

describe('the timer tick', () => {
  function ticking(pageCount: number, startNs: number) {
    const ram = new Ram(FRAMES);
    const pages = Array.from({ length: pageCount }, (_, i) => 10 + i);
    const ticks = new KernelTicks(ram, pages, startNs);
    const step = (until: number) => {
      const before = ram.tags.slice();
      const at = ticks.advance(0, until);
      const written = pages.flatMap((pfn, i) => (ram.tags[pfn] !== before[pfn] ? [i] : []));
      return { at, written };
    };
    return { ram, ticks, step };
  }
  const hot = Array.from({ length: 16 }, (_, i) => i);

  test('comes every 4 ms, whether or not a vCPU is free', () => {
    const { ticks, step } = ticking(80, 1000);
    for (let i = 0; i < 5; i++) {
      const due = 1000 + i * TICK_NS;
      expect([ticks.nextAt(), step(due - 1).written]).toEqual([due, []]);
      expect(step(due)).toEqual({ at: due, written: [...hot, 16 + i] });
    }
  });

  test('writes the hot pages each time and the warm ones in turn', () => {
    const { step } = ticking(80, 0);
    for (let i = 0; i < 130; i++) {
      expect(step(i * TICK_NS).written).toEqual([...hot, 16 + (i % 64)]);
    }
  });

  test('catches up one by one, and says when the last was', () => {
    const { ticks, step } = ticking(80, 0);
    expect(step(10 * TICK_NS + 5)).toEqual({
      at: 10 * TICK_NS,
      written: Array.from({ length: 27 }, (_, i) => i),
    });
    expect(ticks.nextAt()).toBe(11 * TICK_NS);
  });

  test.each([
    [0, Number.POSITIVE_INFINITY, []],
    [3, 0, [0, 1, 2]],
  ])('of %i pages writes no others', (pageCount, nextAt, written) => {
    const { ram, ticks, step } = ticking(pageCount, 0);
    expect(ticks.nextAt()).toBe(nextAt);
    expect(step(TICK_NS).written).toEqual(written);
    expect(ram.tags.reduce((sum, tag) => sum + Number(tag !== 0), 0)).toBe(written.length);
  });
});

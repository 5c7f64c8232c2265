import { describe, expect, test } from 'vitest';
import { Folios } from '../../../../guest/folio/index.ts';
import { applyRecording } from '../../../../guest/machine/initial-state.ts';
import { Ram } from '../../../../guest/machine/ram.ts';
import { Gfp, PageAllocator } from '../../../../guest/mm/index.ts';
import { Replay } from '../../../../guest/workload/replay.ts';
import { type TinyEvent, tinyRecording } from '../../../support/tiny-recording.ts';

const FRAMES = 8192;
const HINT_GFP = '__GFP_NORETRY|__GFP_NOWARN|__GFP_NOMEMALLOC';

function machine(events: TinyEvent[], freePages = 4096, minFreeKbytes?: number) {
  const recording = tinyRecording({
    frameCount: FRAMES,
    free: [[2048, freePages]],
    events,
    gfp: ['GFP_HIGHUSER_MOVABLE', HINT_GFP, 'GFP_KERNEL'],
  });
  const ram = new Ram(FRAMES);
  const mm = new PageAllocator(
    {
      ramPages: FRAMES,
      vcpus: 1,
      mm: { initOnAlloc: false, initOnFree: false, pagePoison: false },
      ...(minFreeKbytes === undefined ? {} : { minFreeKbytes }),
    },
    { clearPages: (pfn, pageCount) => ram.fill(pfn, pageCount, 0) },
  );
  applyRecording(recording, mm, ram);
  const folios = new Folios(mm);
  const user: [pfn: number, live: boolean][] = [];
  const replay = new Replay(
    recording,
    { folios, ram, vcpus: 1, startNs: 0 },
    { onUserPage: (pfn, live) => user.push([pfn, live]) },
  );
  return { mm, ram, replay, user };
}

describe('a replay', () => {
  test('takes the recorded frames, writes them, and gives them back', () => {
    const { mm, ram, replay, user } = machine([
      { atNs: 0, kind: 'alloc', pfn: 3000 },
      { atNs: 10, kind: 'alloc', pfn: 3008, order: 3 },
      { atNs: 20, kind: 'free', pfn: 3000 },
    ]);
    const before = mm.freePages();
    replay.advance(0, 10);
    expect([mm.isFree(3000), mm.isFree(3015), mm.freePages()]).toEqual([false, false, before - 9]);
    expect([...ram.tags.subarray(3008, 3016)].every((tag) => tag !== 0)).toBe(true);
    replay.advance(0, 20);
    expect([mm.isFree(3000), mm.audit()]).toEqual([true, []]);
    expect(user).toEqual([
      [3000, true],
      [3000, false],
    ]);
    expect(replay.counters).toMatchObject({ replay_events: 3, replay_substituted: 0 });
    expect(replay.nextAt(20)).toBe(Number.POSITIVE_INFINITY);
  });

  test('substitutes another frame for one that is held, and frees the substitute', () => {
    const { mm, replay, user } = machine([
      { atNs: 0, kind: 'alloc', pfn: 3000 },
      { atNs: 10, kind: 'free', pfn: 3000 },
    ]);
    expect(mm.allocExact(3000, 0, Gfp.GFP_KERNEL)).toBe(true);
    replay.advance(0, 0);
    const substitute = user[0]?.[0] ?? -1;
    expect(substitute).not.toBe(3000);
    expect(mm.isFree(substitute)).toBe(false);
    replay.advance(0, 10);
    expect([mm.isFree(substitute), mm.isFree(3000)]).toEqual([true, false]);
    expect(replay.counters).toMatchObject({ replay_substituted: 1, replay_stale_frees: 0 });
    expect(mm.audit()).toEqual([]);
  });

  test('counts an allocation that fails, and drops its free', () => {
    const { mm, replay } = machine(
      [
        { atNs: 0, kind: 'alloc', pfn: 3072, order: 10 },
        { atNs: 10, kind: 'free', pfn: 3072, order: 10 },
      ],
      4096,
    );
    // Somebody holds one page in every block of 4 MiB: there is none left to substitute.
    for (let pfn = 2048; pfn < 6144; pfn += 1024) mm.allocExact(pfn, 0, Gfp.GFP_KERNEL);
    const before = mm.freePages();
    replay.advance(0, 10);
    expect(replay.counters).toMatchObject({ replay_failed: 1, replay_stale_frees: 0 });
    expect([mm.freePages(), mm.audit()]).toEqual([before, []]);
  });

  test('leaves out what the recorded hinting driver allocated', () => {
    const { mm, replay } = machine([
      { atNs: 0, kind: 'alloc', pfn: 3072, order: 10, gfpClass: 1 },
      { atNs: 10, kind: 'free', pfn: 3072, order: 10 },
    ]);
    replay.advance(0, 0);
    expect(mm.isFree(3072)).toBe(true);
    replay.advance(0, 10);
    expect(replay.counters).toMatchObject({ replay_events: 2, replay_stale_frees: 0 });
  });

  test('counts a free of what is free, and does nothing', () => {
    const { mm, replay } = machine([{ atNs: 0, kind: 'free', pfn: 3000 }]);
    const before = mm.freePages();
    replay.advance(0, 0);
    expect(replay.counters.replay_stale_frees).toBe(1);
    expect([mm.freePages(), mm.audit()]).toEqual([before, []]);
  });

  test('frees of a block what is not free yet, when events were lost', () => {
    const { mm, replay } = machine([
      { atNs: 0, kind: 'alloc', pfn: 3008, order: 3 },
      { atNs: 10, kind: 'free', pfn: 3010 },
      { atNs: 20, kind: 'free', pfn: 3008, order: 3 },
    ]);
    const before = mm.freePages();
    replay.advance(0, 20);
    expect(replay.counters).toMatchObject({ replay_events: 3, replay_stale_frees: 1 });
    expect([mm.freePages(), mm.audit()]).toEqual([before, []]);
  });

  test('tells only single pages of user data to who rewrites them in place', () => {
    const { replay, user } = machine([
      { atNs: 0, kind: 'alloc', pfn: 3000, gfpClass: 2 },
      { atNs: 0, kind: 'alloc', pfn: 3002, order: 1 },
      { atNs: 0, kind: 'alloc', pfn: 3004 },
    ]);
    replay.advance(0, 0);
    expect(user).toEqual([[3004, true]]);
  });
});

describe('a replay that was held up', () => {
  const events: TinyEvent[] = [0, 50_000, 100_000, 5_000_000, 9_000_000].map((atNs, i) => ({
    atNs,
    kind: 'alloc',
    pfn: 3000 + i,
  }));

  /** One event at a time, as the scheduler does while the vCPU is taken until `freeAt`. */
  function times(freeAt: number): number[] {
    const { replay } = machine(events);
    return events.map(() => replay.advance(freeAt, replay.nextAt(freeAt)));
  }

  test('keeps the recorded times when nothing holds it up', () => {
    expect(times(0)).toEqual(events.map(({ atNs }) => atNs));
  });

  test.each([20_000, 1_000_000, 4_990_000, 20_000_000])(
    'for %i ns never does an event earlier than recorded, nor faster than its work took',
    (freeAt) => {
      const at = times(freeAt);
      at.forEach((time, i) => {
        const recorded = events[i]?.atNs ?? 0;
        expect(time).toBeGreaterThanOrEqual(Math.max(recorded, freeAt));
        if (i === 0) return;
        const gap = recorded - (events[i - 1]?.atNs ?? 0);
        expect(time - (at[i - 1] ?? 0)).toBeGreaterThanOrEqual(Math.min(gap, 100_000));
      });
    },
  );

  test('makes the delay good by sleeping less', () => {
    expect(times(1_000_000)).toEqual([1_000_000, 1_050_000, 1_100_000, 5_000_000, 9_000_000]);
  });

  test('frees a substituted block in parts, whatever stands in the recorded frames by then', () => {
    const { mm, replay } = machine([
      { atNs: 0, kind: 'alloc', pfn: 3008, order: 3 },
      { atNs: 10, kind: 'free', pfn: 3008, order: 1 },
      { atNs: 20, kind: 'free', pfn: 3010, order: 1 },
      { atNs: 30, kind: 'free', pfn: 3012, order: 2 },
    ]);
    // Somebody holds frames in the middle of the recorded block for the whole time.
    expect(mm.allocExact(3010, 1, Gfp.GFP_KERNEL)).toBe(true);
    const before = mm.freePages();
    replay.advance(0, 0);
    expect([replay.counters.replay_substituted, mm.freePages()]).toEqual([1, before - 8]);
    replay.advance(0, 20);
    expect([mm.freePages(), mm.isFree(3010)]).toEqual([before - 4, false]);
    replay.advance(0, 30);
    expect([mm.freePages(), mm.isFree(3010), mm.audit()]).toEqual([before, false, []]);
    expect(replay.counters.replay_stale_frees).toBe(0);
  });

  test('leaves a substitute alone when the frame that it took is freed by the recording', () => {
    const { mm, replay } = machine([
      { atNs: 0, kind: 'alloc', pfn: 3000 },
      { atNs: 20, kind: 'free', pfn: 3000 },
    ]);
    expect(mm.allocExact(3000, 0, Gfp.GFP_KERNEL)).toBe(true);
    const before = mm.freePages();
    replay.advance(0, 0);
    expect(mm.freePages()).toBe(before - 1);
    replay.advance(0, 20);
    expect([mm.freePages(), mm.isFree(3000)]).toEqual([before, false]);
  });
});

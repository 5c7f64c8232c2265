import { describe, expect, test } from 'vitest';
import { Folios } from '../../../../guest/folio/index.ts';
import { applyRecording } from '../../../../guest/machine/initial-state.ts';
import { Ram } from '../../../../guest/machine/ram.ts';
import { Gfp, PageAllocator, PageFlag, PageOwner } from '../../../../guest/mm/index.ts';
import { memmapPageOf } from '../../../../guest/workload/kernel-pages.ts';
import { Replay } from '../../../../guest/workload/replay.ts';
import { Bitmap } from '../../../../shared/index.ts';
import { type TinyEvent, tinyRecording } from '../../../support/tiny-recording.ts';
import { NO_INIT } from '../mm/machine.ts';

const FRAMES = 8192;
const MEMMAP = 256;

function machine(events: TinyEvent[]) {
  const recording = tinyRecording({
    frameCount: FRAMES,
    free: [[2048, 4096]],
    events,
    gfp: ['GFP_HIGHUSER_MOVABLE', 'GFP_KERNEL'],
  });
  recording.start.reserved.setRange(MEMMAP, FRAMES / 64);
  const ram = new Ram(FRAMES);
  const mm = new PageAllocator(
    { ramPages: FRAMES, vcpus: 1, mm: NO_INIT },
    { clearPages: (pfn, pageCount) => ram.fill(pfn, pageCount, 0) },
  );
  applyRecording(recording, mm, ram);
  const folios = new Folios(mm);
  const user = new Set<number>();
  const replay = new Replay(
    recording,
    { folios, ram, vcpus: 1, startNs: 0 },
    { onUserPage: (pfn, live) => (live ? user.add(pfn) : user.delete(pfn)) },
  );
  /** On the LRU, so that compaction may take it. */
  const isMovable = (pfn: number) => mm.pages.hasFlag(pfn, PageFlag.LRU);
  const isolate = (pfn: number) => expect(folios.lruvec.isolate(pfn)).toBe(true);
  /** Moves an isolated page as page migration does. */
  const moveIsolated = (from: number, to: number) => {
    const { pages } = mm;
    expect(mm.allocExact(to, 0, Gfp.GFP_HIGHUSER_MOVABLE)).toBe(true);
    expect(pages.freeze(from, 2)).toBe(true);
    ram.copy(from, to);
    pages.setOwner(to, PageOwner.FILE);
    pages.mapping[to] = pages.mapping[from]!;
    folios.mappings.of(from)!.replace(from, to, pages.mappingIndex(from));
    folios.lruvec.uncountIsolated(from);
    folios.lruvec.add(to);
    folios.freeFrozen(from);
  };
  const move = (from: number, to: number) => {
    isolate(from);
    moveIsolated(from, to);
  };
  const used = () => {
    const free = new Bitmap(FRAMES);
    mm.writeFreeSet(free);
    const pfns: number[] = [];
    for (let pfn = 2048; pfn < 6144; pfn++) if (!free.get(pfn)) pfns.push(pfn);
    return pfns;
  };
  return { mm, ram, folios, replay, user, isMovable, isolate, move, used };
}

describe('a page that compaction moved away from a replay', () => {
  test('is freed where it is', () => {
    const { mm, ram, replay, user, isMovable, move, used } = machine([
      { atNs: 0, kind: 'alloc', pfn: 3000 },
      { atNs: 10, kind: 'free', pfn: 3000 },
    ]);
    replay.advance(0, 0);
    const tag = ram.tags[3000];
    move(3000, 5000);
    expect([ram.tags[5000], used(), [...user]]).toEqual([tag, [5000], [5000]]);
    expect([isMovable(3000), isMovable(5000)]).toEqual([false, true]);
    move(5000, 6000);
    expect([ram.tags[6000], used()]).toEqual([tag, [6000]]);
    replay.advance(0, 10);
    expect([used(), [...user], mm.audit()]).toEqual([[], [], []]);
    expect(replay.counters.replay_stale_frees).toBe(0);
    expect(isMovable(6000)).toBe(false);
  });

  test('moves back to its recorded frame', () => {
    const { replay, move, used } = machine([
      { atNs: 0, kind: 'alloc', pfn: 3000 },
      { atNs: 10, kind: 'free', pfn: 3000 },
    ]);
    replay.advance(0, 0);
    move(3000, 5000);
    move(5000, 3000);
    expect(used()).toEqual([3000]);
    replay.advance(0, 10);
    expect(used()).toEqual([]);
  });

  test('makes way by a substitute for who was recorded in its new frame', () => {
    const { mm, ram, replay, move, used } = machine([
      { atNs: 0, kind: 'alloc', pfn: 3000 },
      { atNs: 10, kind: 'alloc', pfn: 5000 },
      { atNs: 20, kind: 'free', pfn: 5000 },
      { atNs: 30, kind: 'free', pfn: 3000 },
    ]);
    replay.advance(0, 0);
    move(3000, 5000);
    const tag = ram.tags[5000];
    replay.advance(0, 10);
    expect(replay.counters.replay_substituted).toBe(1);
    expect(used().length).toBe(2);
    // The one of the recorded frame 5000 goes, the one that lies in it stays.
    replay.advance(0, 20);
    expect([used(), ram.tags[5000]]).toEqual([[5000], tag]);
    replay.advance(0, 30);
    expect([used(), mm.audit(), replay.counters.replay_stale_frees]).toEqual([[], [], 0]);
  });

  test('leaves its old frame to who was recorded there next', () => {
    const { replay, isMovable, move, used } = machine([
      { atNs: 0, kind: 'alloc', pfn: 3000 },
      { atNs: 10, kind: 'free', pfn: 3000 },
      { atNs: 20, kind: 'alloc', pfn: 3000, gfpClass: 1 },
      { atNs: 30, kind: 'free', pfn: 3000 },
    ]);
    replay.advance(0, 0);
    move(3000, 5000);
    replay.advance(0, 20);
    expect(used()).toEqual([3000]);
    expect(isMovable(3000)).toBe(false);
    replay.advance(0, 30);
    expect([used(), replay.counters.replay_substituted]).toEqual([[], 0]);
  });

  test('survives its end while it is isolated', () => {
    const { mm, folios, replay, user, isolate } = machine([
      { atNs: 0, kind: 'alloc', pfn: 3000 },
      { atNs: 10, kind: 'free', pfn: 3000 },
    ]);
    replay.advance(0, 0);
    isolate(3000);
    replay.advance(0, 10);
    expect([mm.isFree(3000), mm.pages.refcount[3000], user.size]).toEqual([false, 1, 0]);
    folios.putbackLru(3000);
    expect([mm.isFree(3000), mm.audit()]).toEqual([true, []]);
  });

  test('is freed with others in one block', () => {
    const { mm, replay, user, used } = machine([
      { atNs: 0, kind: 'alloc', pfn: 3000 },
      { atNs: 0, kind: 'alloc', pfn: 3001 },
      { atNs: 10, kind: 'free', pfn: 3000, order: 1 },
    ]);
    replay.advance(0, 0);
    expect(user.size).toBe(2);
    replay.advance(0, 10);
    expect([used(), user.size, mm.audit()]).toEqual([[], 0, []]);
  });

  test('writes the struct page of its new frame', () => {
    const { ram, replay, move } = machine([{ atNs: 0, kind: 'alloc', pfn: 3000 }]);
    replay.advance(0, 0);
    const page = memmapPageOf(MEMMAP, 5000);
    const before = ram.tags[page];
    move(3000, 5000);
    expect(ram.tags[page]).not.toBe(before);
  });
});

test('only single pages of user data are movable', () => {
  const { replay, isMovable } = machine([
    { atNs: 0, kind: 'alloc', pfn: 3000, gfpClass: 1 },
    { atNs: 0, kind: 'alloc', pfn: 3002, order: 1 },
    { atNs: 0, kind: 'alloc', pfn: 3004 },
  ]);
  replay.advance(0, 0);
  const movable = [3000, 3002, 3003, 3004, 3005].filter(isMovable);
  expect(movable).toEqual([3004]);
});

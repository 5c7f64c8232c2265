import { describe, expect, test } from 'vitest';
import { CompactContext } from '../../../../guest/compaction/compact-context.ts';
import type {
  CompactControl,
  CompactRequest,
} from '../../../../guest/compaction/compact-control.ts';
import { MigrateScanner } from '../../../../guest/compaction/isolate-migratepages.ts';
import { Gfp, MigrateType, PageFlag, ZoneType } from '../../../../guest/mm/index.ts';
import { MigrateMode } from '../../../../guest/page-migration/index.ts';
import type { PinCheck } from '../../../../protocol/index.ts';
import { Errno } from '../../../../shared/index.ts';
import { GENERATIONS } from '../page-migration/machine.ts';
import { CompactionMachine, type FrameKind } from './machine.ts';

const { ASYNC, SYNC_LIGHT, SYNC } = MigrateMode;
const BLOCK = 512;
const END = 1024;
const PAGE = 600;

type Options = ConstructorParameters<typeof CompactionMachine>[0];

class Scan {
  readonly machine: CompactionMachine;
  readonly context: CompactContext;
  readonly #scanner: MigrateScanner;

  constructor(options: Options = {}) {
    this.machine = new CompactionMachine(options);
    const { kernel, folios, migration } = this.machine;
    this.context = new CompactContext(kernel, folios, migration, {
      pinCheck: options.pinCheck ?? 'anonymous',
      unevictableAllowed: options.unevictableAllowed ?? true,
    });
    this.#scanner = new MigrateScanner(this.context);
  }

  begin(request: Partial<CompactRequest> = {}) {
    const zone = this.machine.mm.zones[ZoneType.DMA]!;
    return this.context.begin({ zone, order: 9, mode: SYNC_LIGHT, ...request });
  }

  scanOf(cc: CompactControl, low = BLOCK, end = END) {
    return this.#scanner.isolateBlock(cc, low, end);
  }

  block(cc: CompactControl, low = BLOCK, end = END): Errno {
    return this.machine.run(() => this.scanOf(cc, low, end));
  }

  /** Scans a block and puts back what it took; returns that. */
  taken(request: Partial<CompactRequest> = {}): number[] {
    const cc = this.begin(request);
    expect(this.block(cc)).toBe(Errno.OK);
    const taken = pfnsOf(cc);
    this.machine.run(() => this.machine.migration.putbackAll(cc.migratePages));
    return taken;
  }
}

function isolatedPages({ folios }: CompactionMachine): number {
  return folios.lruvec.isolatedAnonPages + folios.lruvec.isolatedFilePages;
}

function pfnsOf({ migratePages }: CompactControl): number[] {
  if (migratePages.shape === 'list') return [...migratePages];
  return Array.from({ length: migratePages.count }, (_, i) =>
    migratePages.pfnAt(migratePages.src, i),
  );
}

interface Row {
  readonly check: string;
  readonly kind?: FrameKind;
  /** What is made of the page, alone in its block. */
  readonly prepare?: (machine: CompactionMachine) => void;
  readonly options?: Options;
  readonly request?: Partial<CompactRequest>;
  readonly taken: boolean;
}

const flag = (bits: number) => (machine: CompactionMachine) => machine.pages.setFlag(PAGE, bits);
const stuckFile = ({ pages, file }: CompactionMachine) => {
  file.migratesDirty = false;
  pages.setFlag(PAGE, PageFlag.DIRTY);
};
const noFs = { gfp: Gfp.GFP_NOFS };
const noUnevictable = { unevictableAllowed: false };
const inCma = ({ mm }: CompactionMachine) => mm.setMigratetype(1, MigrateType.CMA);
const checkOf = (pinCheck: PinCheck) => ({ pinCheck });

const ROWS: readonly Row[] = [
  { check: 'nothing against it', taken: true },
  { check: '4 free pages are passed over', kind: 'free', taken: false },
  { check: '6 neither LRU nor movable', kind: 'kernel', taken: false },
  { check: '6 of a driver with movable_operations', kind: 'driver', taken: true },
  {
    check: '6 of a driver, but isolated already',
    kind: 'driver',
    prepare: flag(PageFlag.ISOLATED),
    taken: false,
  },
  {
    check: '6 of a driver that refuses',
    kind: 'driver',
    prepare: (m) => void m.driver.refused.add(PAGE),
    taken: false,
  },
  {
    check: '7 its last reference is gone',
    prepare: ({ pages }) => void pages.refcount.fill(0, PAGE, PAGE + 1),
    taken: false,
  },
  { check: '8 hardware poison', prepare: flag(PageFlag.HWPOISON), taken: false },
  {
    check: '9 anonymous with a reference that no PTE has',
    kind: 'anon',
    prepare: ({ pages }) => void pages.refcount[PAGE]!++,
    taken: false,
  },
  { check: '9 anonymous, its PTEs only', kind: 'anon', taken: true },
  { check: '9 page cache that is pinned: goes unseen', kind: 'pinned', taken: true },
  ...(['extra_refs', 'maybe_dma_pinned'] as const).flatMap((pinCheck): Row[] => [
    { check: `9 ${pinCheck}: pinned`, kind: 'pinned', options: checkOf(pinCheck), taken: false },
    {
      check: `9 ${pinCheck}: mapped page cache`,
      kind: 'mapped',
      options: checkOf(pinCheck),
      taken: true,
    },
    {
      check: `9 ${pinCheck}: pinned, in CMA`,
      kind: 'pinned',
      prepare: inCma,
      options: checkOf(pinCheck),
      taken: true,
    },
    {
      check: `9 ${pinCheck}: pinned, for alloc_contig_range`,
      kind: 'pinned',
      options: checkOf(pinCheck),
      request: { allocContig: true },
      taken: true,
    },
  ]),
  {
    check: '9 extra_refs: one reference too many',
    kind: 'held',
    options: checkOf('extra_refs'),
    taken: false,
  },
  {
    check: '9 maybe_dma_pinned: one reference too many',
    kind: 'held',
    options: checkOf('maybe_dma_pinned'),
    taken: true,
  },
  { check: '10 page cache, for who must not enter file systems', request: noFs, taken: false },
  {
    check: '10 anonymous, for who must not enter file systems',
    kind: 'anon',
    request: noFs,
    taken: true,
  },
  { check: '11 off the LRU', prepare: ({ folios }) => folios.lruvec.remove(PAGE), taken: false },
  {
    check: '12 unevictable, which the sysctl forbids',
    prepare: asUnevictable,
    options: noUnevictable,
    taken: false,
  },
  { check: '12 unevictable', prepare: asUnevictable, taken: true },
  {
    check: '12 unevictable, for alloc_contig_range',
    prepare: asUnevictable,
    options: noUnevictable,
    request: { allocContig: true },
    taken: true,
  },
  { check: '13 writeback', prepare: flag(PageFlag.WRITEBACK), taken: false },
  {
    check: '13 writeback, for who waits for it',
    prepare: flag(PageFlag.WRITEBACK),
    request: { mode: SYNC },
    taken: true,
  },
  { check: '14 dirty', prepare: flag(PageFlag.DIRTY), taken: true },
  { check: '14 dirty and locked', prepare: flag(PageFlag.DIRTY | PageFlag.LOCKED), taken: false },
  { check: '14 dirty, of who cannot move dirty pages', prepare: stuckFile, taken: false },
  {
    check: '14 the same, for who writes it first',
    prepare: stuckFile,
    request: { mode: SYNC },
    taken: true,
  },
  {
    check: '14 unevictable and locked',
    prepare: (m) => {
      asUnevictable(m);
      m.pages.setFlag(PAGE, PageFlag.LOCKED);
    },
    taken: false,
  },
  { check: '14 clean and locked', prepare: flag(PageFlag.LOCKED), taken: true },
];

/** mlocked: on the list of such pages. */
function asUnevictable({ pages, folios }: CompactionMachine): void {
  folios.lruvec.remove(PAGE);
  pages.setFlag(PAGE, PageFlag.UNEVICTABLE);
  folios.lruvec.add(PAGE);
}

describe.each(GENERATIONS)('the checks of a page (%s)', (generation) => {
  test.each(ROWS)('$check: taken $taken', ({ kind, prepare, options, request, taken }) => {
    const scan = new Scan({ ...options, generation });
    scan.machine.use(PAGE, kind ?? 'file');
    prepare?.(scan.machine);
    expect(scan.taken(request)).toEqual(taken ? [PAGE] : []);
  });
});

test.each([
  ['anonymous', 1],
  ['extra_refs', 1],
  ['maybe_dma_pinned', 1],
] as const)('9 %s: a pin in ZONE_MOVABLE will go away', (pinCheck, count) => {
  const scan = new Scan({ pinCheck, movablePages: 2048 });
  const { machine } = scan;
  machine.use(3000, 'pinned');
  const cc = scan.begin({ zone: machine.mm.zones[ZoneType.MOVABLE]! });
  scan.block(cc, 2560, 3072);
  expect(pfnsOf(cc).length).toBe(count);
});

describe('0 too many isolated pages', () => {
  /** 160 pages on the LRU, of which so many are taken. */
  const withIsolated = (count: number) => {
    const scan = new Scan();
    for (let i = 0; i < 160; i++) scan.machine.use(2048 + i, 'file');
    for (let i = 0; i < count; i++) scan.machine.folios.lruvec.isolate(2048 + i);
    scan.machine.use(PAGE, 'file');
    return scan;
  };

  // A sixteenth of those left for who may enter file systems, half for others.
  test.each([
    [9, Gfp.GFP_KERNEL, Errno.OK],
    [10, Gfp.GFP_KERNEL, Errno.EAGAIN],
    [10, Gfp.GFP_NOFS, Errno.OK],
    [53, Gfp.GFP_NOFS, Errno.OK],
    [54, Gfp.GFP_NOFS, Errno.EAGAIN],
  ])('%i of 161, gfp 0x%x: %i', (count, gfp, result) => {
    const scan = withIsolated(count);
    expect(scan.block(scan.begin({ mode: ASYNC, gfp }))).toBe(result);
  });

  test('make who may wait wait until there are fewer', () => {
    const scan = withIsolated(60);
    const { machine } = scan;
    machine.spawn(function* () {
      yield { kind: 'sleep', ns: 70_000_000 };
      for (let i = 0; i < 60; i++) machine.folios.putbackLru(2048 + i);
    });
    expect(scan.taken()).toEqual([PAGE]);
    expect(machine.scheduler.kthreadCpuNs).toBeGreaterThan(0);
  });

  test('are an error for who has isolated something itself', () => {
    const scan = withIsolated(60);
    const cc = scan.begin();
    cc.nrMigratePages = 1;
    expect(scan.block(cc)).toBe(Errno.EAGAIN);
  });
});

describe('the scan of a block', () => {
  const block = (kindOf: (pfn: number) => FrameKind, options: Options = {}) => {
    const scan = new Scan(options);
    for (let pfn = BLOCK; pfn < END; pfn++) scan.machine.use(pfn, kindOf(pfn));
    return scan;
  };

  test('16 counts what it takes off the LRU, and nothing else', () => {
    const scan = block((pfn) => (pfn < 520 ? 'file' : pfn < 524 ? 'driver' : 'kernel'));
    const { folios } = scan.machine;
    const before = folios.lruvec.evictablePages;
    const cc = scan.begin();
    scan.block(cc);
    expect([cc.nrMigratePages, isolatedPages(scan.machine)]).toEqual([12, 8]);
    expect(before - folios.lruvec.evictablePages).toBe(8);
    expect(scan.machine.mm.vmstat.compact_isolated).toBe(12);
  });

  test('17 ends with a cluster, and goes on where it ended', () => {
    const scan = block(() => 'file');
    const cc = scan.begin();
    scan.block(cc);
    expect([cc.nrMigratePages, cc.migratePfn, cc.totalMigrateScanned]).toEqual([32, 544, 32]);
  });

  test('17 takes all of it if the block is to be finished', () => {
    const scan = block(() => 'file');
    const cc = scan.begin();
    cc.finishPageblock = true;
    scan.block(cc);
    expect([cc.nrMigratePages, cc.migratePfn, scan.context.skip.get(BLOCK)]).toEqual([
      512,
      END,
      true,
    ]);
  });

  test('2 is not begun if the block has its skip bit', () => {
    const scan = block(() => 'file');
    scan.context.skip.set(BLOCK);
    expect(scan.taken()).toEqual([]);
    expect(scan.taken({ ignoreSkipHint: true })).toHaveLength(32);
  });

  test.each([
    ['nothing there can be moved', 'kernel', true, END],
    ['something is taken', 'file', true, 0],
    ['movable pages off the LRU are taken', 'driver', false, 0],
  ] as const)('15 sets the skip bit: %s', (_what, kind, isSet, cursor) => {
    const scan = block((pfn) => (pfn === PAGE ? kind : 'kernel'));
    const state = scan.context.stateOf(scan.machine.mm.zones[0]!);
    scan.taken();
    expect(scan.context.skip.get(BLOCK)).toBe(isSet);
    expect(state.cachedMigratePfn).toEqual([cursor, cursor]);
  });

  test('15 leaves no trace in a range of alloc_contig_range', () => {
    const scan = block(() => 'kernel');
    scan.taken({ noSetSkipHint: true });
    expect(scan.context.skip.get(BLOCK)).toBe(false);
    expect(scan.context.stateOf(scan.machine.mm.zones[0]!).cachedMigratePfn).toEqual([0, 0]);
  });

  test('15 leaves a block to who was first', () => {
    const scan = block((pfn) => (pfn < 700 ? 'kernel' : 'file'), { isExplored: true });
    const cc = scan.begin();
    let steps = 0;
    scan.machine.stepping(
      () => scan.scanOf(cc, BLOCK, END),
      () => {
        if (++steps === 3) scan.context.skip.set(BLOCK);
      },
    );
    expect([pfnsOf(cc), cc.migratePfn]).toEqual([[], END]);
  });

  test('15 waits for who has the LRU lock, and an asynchronous run ends soon', () => {
    const scan = block((pfn) => (pfn === PAGE ? 'file' : 'kernel'));
    const { lock } = scan.machine.folios.lruvec;
    lock.tryLock();
    scan.machine.spawn(function* () {
      yield { kind: 'sleep', ns: 50_000 };
      lock.unlock();
    }, 1);
    const cc = scan.begin({ mode: ASYNC });
    scan.block(cc);
    expect([cc.contended, pfnsOf(cc), lock.isHeld]).toEqual([true, [PAGE], false]);
  });

  test('16 takes large pages that are smaller than what is wanted, and passes over others', () => {
    const scan = new Scan();
    const { machine } = scan;
    const large = (pfn: number, order: number) => {
      machine.mm.allocExact(pfn, order, Gfp.GFP_HIGHUSER_MOVABLE);
      machine.file.add(pfn);
    };
    large(512, 4);
    large(640, 2);
    expect(scan.taken({ order: 4 })).toEqual([640]);
    expect(scan.taken({ order: 5, ignoreSkipHint: true })).toEqual([512, 640]);
    expect(machine.audit()).toEqual([]);
  });

  test('counts what it passes', () => {
    const scan = block((pfn) => (pfn < 768 ? 'kernel' : 'free'));
    const cc = scan.begin();
    const cpuBefore = scan.machine.scheduler.kthreadCpuNs;
    scan.block(cc);
    expect(cc.totalMigrateScanned).toBe(512);
    // The free half is one block, and one look.
    const { scanPfnNs } = scan.machine.kernel.costs;
    expect(scan.machine.scheduler.kthreadCpuNs - cpuBefore).toBe(257 * scanPfnNs);
  });

  describe('for who asks directly and does not wait', () => {
    const direct = { mode: ASYNC, direct: true, order: 4 } as const;

    test('puts back a chunk with one page that cannot move, and takes the next', () => {
      // Chunks of 16 frames: the first is ruined by its sixth page.
      const scan = block((pfn) => (pfn === 517 ? 'kernel' : pfn < 544 ? 'file' : 'free'));
      const cc = scan.begin(direct);
      scan.block(cc);
      expect(pfnsOf(cc)).toEqual(Array.from({ length: 16 }, (_, i) => 528 + i));
      expect([cc.nrMigratePages, isolatedPages(scan.machine), cc.migratePfn]).toEqual([
        16, 16, 544,
      ]);
      expect(scan.machine.pages.hasFlag(512, PageFlag.LRU)).toBe(true);
    });

    test('leaves out what is behind the page that cannot move', () => {
      const scan = block((pfn) => (pfn % 16 === 0 ? 'kernel' : 'file'));
      expect(scan.taken(direct)).toEqual([]);
      expect(scan.machine.mm.vmstat.compact_isolated).toBe(0);
    });
  });
});

test('a page that goes away between the checks and the lock is let go', () => {
  const scan = new Scan({ isExplored: true });
  const { machine } = scan;
  machine.use(PAGE, 'file');
  const cc = scan.begin();
  let isDropped = false;
  machine.stepping(
    () => scan.scanOf(cc, BLOCK, END),
    () => {
      if (isDropped || machine.pages.refcount[PAGE] !== 2) return;
      isDropped = true;
      machine.file.drop(0);
    },
  );
  expect([isDropped, pfnsOf(cc), machine.pages.refcount[PAGE]]).toEqual([true, [PAGE], 1]);
  // Isolated with the only reference: putting it back frees it.
  machine.run(() => machine.migration.putbackAll(cc.migratePages));
  expect(machine.mm.isFree(PAGE)).toBe(true);
});

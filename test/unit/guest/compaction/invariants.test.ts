/** What holds in every run, over random memory: the numbers are those of docs/compaction.md. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { CompactContext } from '../../../../guest/compaction/compact-context.ts';
import type {
  CompactControl,
  CompactRequest,
} from '../../../../guest/compaction/compact-control.ts';
import { ZoneCompactor } from '../../../../guest/compaction/compact-zone.ts';
import type { CompactResult } from '../../../../guest/compaction/result.ts';
import { Gfp, PAGEBLOCK_NR_PAGES, PageFlag, PageOwner } from '../../../../guest/mm/index.ts';
import { MigrateMode } from '../../../../guest/page-migration/index.ts';
import { PIN_CHECKS, type PinCheck } from '../../../../protocol/index.ts';
import { GENERATIONS, type GenerationName } from '../page-migration/machine.ts';
import { CompactionMachine, type FrameKind } from './machine.ts';

const RAM_PAGES = 3072;
const BLOCKS = RAM_PAGES / PAGEBLOCK_NR_PAGES;
const KINDS: readonly FrameKind[] = [
  'free',
  'file',
  'mapped',
  'anon',
  'driver',
  'pinned',
  'held',
  'busy',
  'kernel',
];

interface Case {
  readonly seed: number;
  /** Weights of the kinds in each block. */
  readonly blocks: readonly (readonly number[])[];
  readonly skipped: readonly boolean[];
  readonly generation: GenerationName;
  readonly pinCheck: PinCheck;
  readonly request: Omit<CompactRequest, 'zone'>;
}

const REQUESTS: readonly Omit<CompactRequest, 'zone'>[] = [
  { order: -1, mode: MigrateMode.SYNC, wholeZone: true, ignoreSkipHint: true },
  {
    order: -1,
    mode: MigrateMode.SYNC_LIGHT,
    wholeZone: true,
    ignoreSkipHint: true,
    proactive: true,
  },
  { order: 9, mode: MigrateMode.SYNC_LIGHT },
  { order: 4, mode: MigrateMode.SYNC_LIGHT },
  { order: 9, mode: MigrateMode.SYNC_LIGHT, direct: true },
  { order: 3, mode: MigrateMode.ASYNC, direct: true, gfp: Gfp.GFP_HIGHUSER_MOVABLE },
  { order: 5, mode: MigrateMode.ASYNC, direct: true, gfp: Gfp.GFP_HIGHUSER_MOVABLE },
  {
    order: 9,
    mode: MigrateMode.SYNC_LIGHT,
    direct: true,
    wholeZone: true,
    ignoreSkipHint: true,
    ignoreBlockSuitable: true,
  },
];

const cases: fc.Arbitrary<Case> = fc.record({
  seed: fc.nat(),
  blocks: fc.array(
    fc.tuple(...KINDS.map((kind) => fc.integer({ min: 0, max: kind === 'free' ? 12 : 5 }))),
    { minLength: BLOCKS, maxLength: BLOCKS },
  ),
  skipped: fc.array(fc.boolean(), { minLength: BLOCKS, maxLength: BLOCKS }),
  generation: fc.constantFrom(...GENERATIONS),
  pinCheck: fc.constantFrom(...PIN_CHECKS),
  request: fc.constantFrom(...REQUESTS),
});

/** A reproducible choice by weights. */
function kindOf({ seed, blocks }: Case, pfn: number): FrameKind {
  const weights = blocks[pfn >>> 9]!;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let at = ((Math.imul(pfn + 1, 0x9e3779b1) ^ Math.imul(seed, 0x85ebca6b)) >>> 9) % (total + 1);
  for (const [i, weight] of weights.entries()) {
    if (at < weight) return KINDS[i]!;
    at -= weight;
  }
  return 'kernel';
}

class Run {
  readonly machine: CompactionMachine;
  readonly cc: CompactControl;
  readonly kinds: FrameKind[];
  readonly context: CompactContext;
  /** Frames seen isolated as sources, and as targets. */
  readonly sources = new Set<number>();
  readonly targets = new Set<number>();
  readonly freeBefore: number;
  readonly largeBefore: number;
  result: CompactResult | null = null;
  #migratePfn = -1;
  #freePfn = RAM_PAGES;

  constructor(given: Case) {
    const { generation, pinCheck, request } = given;
    const machine = new CompactionMachine({ ramPages: RAM_PAGES, generation, pinCheck });
    this.machine = machine;
    this.kinds = Array.from({ length: RAM_PAGES }, (_, pfn) =>
      pfn < 512 ? 'kernel' : kindOf(given, pfn),
    );
    machine.layOut((pfn) => this.kinds[pfn]!);
    const { kernel, folios, migration } = machine;
    this.context = new CompactContext(kernel, folios, migration, { pinCheck });
    for (const [block, isSkipped] of given.skipped.entries()) {
      if (isSkipped) this.context.skip.set(block << 9);
    }
    this.cc = this.context.begin({ zone: machine.mm.zones[0]!, ...request });
    this.freeBefore = machine.mm.freePages();
    this.largeBefore = this.largeBlocks;
  }

  /** The free lists do not lead the migrate scanner back and forth. */
  get isLinear(): boolean {
    return this.cc.ignoreSkipHint || this.cc.order <= 3;
  }

  get largeBlocks(): number {
    const { nrFree } = this.machine.mm.zones[0]!;
    return nrFree[9]! + 2 * nrFree[10]!;
  }

  go(): void {
    const compactor = new ZoneCompactor(this.context);
    this.result = this.machine.stepping(
      () => compactor.compact(this.cc, 0),
      () => this.#look(),
    );
  }

  /** Between two steps. */
  #look(): void {
    const { cc, machine } = this;
    const { pages } = machine;
    // 1. Within its block the free scanner goes up; a search of the free lists may go back.
    if (this.isLinear && cc.migratePfn < this.#migratePfn)
      expect.fail('the migrate scanner went back');
    if (cc.freePfn >>> 9 > this.#freePfn >>> 9) expect.fail('the free scanner went up');
    if (cc.freePfn >>> 9 < (cc.migratePfn >>> 9) - 1) expect.fail('the scanners passed each other');
    this.#migratePfn = cc.migratePfn;
    this.#freePfn = cc.freePfn;
    // 3.
    let targetPages = 0;
    for (let pfn = 512; pfn < RAM_PAGES; pfn++) {
      if (pages.owner[pfn] !== PageOwner.COMPACTION || pages.isFree(pfn)) continue;
      if (!pages.hasFlag(pfn, PageFlag.ALLOCATED)) continue;
      targetPages += 1 << pages.order[pfn]!;
      for (let at = pfn; at < pfn + (1 << pages.order[pfn]!); at++) this.targets.add(at);
    }
    if (targetPages !== cc.freePages.pageCount) {
      expect.fail(`${targetPages} targets, counted ${cc.freePages.pageCount}`);
    }
    for (const pfn of this.#isolated()) this.sources.add(pfn);
  }

  #isolated(): number[] {
    const { migratePages } = this.cc;
    if (migratePages.shape === 'list') return [...migratePages];
    return Array.from({ length: migratePages.count }, (_, i) =>
      migratePages.pfnAt(migratePages.src, i),
    );
  }

  /** Pages by the frames they had and have, those that moved. */
  get moves(): [from: number, to: number][] {
    return this.machine.movable
      .map((pfn): [number, number] => [pfn, this.machine.whereIs(pfn)])
      .filter(([from, to]) => from !== to);
  }
}

/** Of all cases together: what makes the checks worth something. */
const seen = {
  moves: 0,
  targets: 0,
  skippedMoves: 0,
  pinned: 0,
  results: new Set<CompactResult>(),
};

function check(run: Run, { skipped, request, pinCheck }: Case): void {
  const { machine, cc, moves } = run;
  expect(machine.audit()).toEqual([]);
  // 2, 3, 5.
  expect([cc.nrMigratePages, cc.freePages.pageCount, cc.migratePages.count]).toEqual([0, 0, 0]);
  machine.mm.drainAllPcp();
  expect(machine.mm.freePages()).toBe(run.freeBefore);
  const isExact = request.order < 0;
  const wantsLarge = request.order === 9 || request.order < 0;
  if (wantsLarge) expect(run.largeBlocks).toBeGreaterThanOrEqual(run.largeBefore);
  for (const [from, to] of moves) {
    // 4. What the free lists led to may lie inside the range, and is moved once more then.
    if (isExact && to <= from) expect.fail(`frame ${from} went down to ${to}`);
    if (isExact && run.sources.has(to)) expect.fail(`frame ${to} was source and target`);
    // 6.
    if (skipped[from >>> 9]) seen.skippedMoves++;
    if (skipped[from >>> 9] && !request.ignoreSkipHint) expect.fail(`block of ${from} was skipped`);
    const kind = run.kinds[from]!;
    if (['pinned', 'held', 'busy', 'kernel'].includes(kind)) expect.fail(`${kind} ${from} moved`);
  }
  // 8.
  const { compact_isolated, pgmigrate_success } = machine.mm.vmstat;
  expect(pgmigrate_success).toBeGreaterThanOrEqual(moves.length);
  if (isExact) expect(pgmigrate_success).toBe(moves.length);
  expect(compact_isolated).toBeGreaterThanOrEqual(pgmigrate_success);
  const pinned = [...run.sources].filter((pfn) => run.kinds[pfn] === 'pinned');
  if (pinCheck !== 'anonymous') expect(pinned).toEqual([]);
  seen.pinned += pinned.length;
  seen.moves += moves.length;
  seen.targets += run.targets.size;
  seen.results.add(run.result!);
}

test('the invariants 1 to 6 and 8 hold in every run', () => {
  const property = fc.property(cases, (given) => {
    const run = new Run(given);
    run.go();
    check(run, given);
  });
  fc.assert(property, { numRuns: 24, seed: 11 });
  expect(seen.moves).toBeGreaterThan(1000);
  expect(seen.targets).toBeGreaterThan(1000);
  expect(seen.skippedMoves).toBeGreaterThan(100);
  expect(seen.pinned).toBeGreaterThan(100);
  expect(seen.results.size).toBeGreaterThan(2);
});

test('7: an asynchronous direct run takes whole chunks or nothing of them', () => {
  const request = REQUESTS.find(({ order }) => order === 3)!;
  let moves = 0;
  const property = fc.property(cases, (given) => {
    const run = new Run({ ...given, request });
    run.go();
    for (const [from] of run.moves) {
      const chunk = run.kinds.slice(from & -8, (from & -8) + 8);
      if (chunk.includes('kernel')) expect.fail(`${from} is beside a page of the kernel`);
      moves++;
    }
  });
  fc.assert(property, { numRuns: 10, seed: 12 });
  expect(moves).toBeGreaterThan(0);
});

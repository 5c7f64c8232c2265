/** The guest's whole balloon driver on the device: everything that the puppet leaves out. */
import { describe, expect } from 'vitest';
import type {
  ConformanceMachine,
  MachineOptions,
  OfferedFeatures,
} from '../../peers/conformance-machine.ts';
import type { DriverBehaviourName, StrategyName } from '../../protocol/index.ts';
import { BalloonFeature, hasFeature } from '../../protocol/index.ts';
import { PAGE_SIZE_BYTES, type Pfn } from '../../shared/index.ts';
import { type StartMachine, suiteOf } from './fixture.ts';
import { Migration } from './migration.ts';
import { contentWord, GFP_TEST, range } from './puppet.ts';

const RINGS: readonly (readonly [string, OfferedFeatures])[] = [
  ['split rings', {}],
  ['EVENT_IDX', { eventIdx: true }],
  ['indirect descriptors', { indirectDesc: true }],
  ['packed rings', { ringPacked: true }],
  ['packed rings and EVENT_IDX', { ringPacked: true, eventIdx: true }],
  ['every ring feature', { ringPacked: true, eventIdx: true, indirectDesc: true, ringReset: true }],
];
const EVERYTHING: OfferedFeatures = {
  freePageHint: true,
  pageReporting: true,
  pagePoison: true,
  deflateOnOom: true,
};
const BEHAVIOURS: readonly DriverBehaviourName[] = ['linux', 'windows', 'freebsd'];
const STRATEGIES: readonly StrategyName[] = ['iterate', 'alloc', 'oracle'];

export function driverTests(start: StartMachine): void {
  const { test } = suiteOf(start);

  describe('the driver', () => {
    for (const [name, offers] of RINGS) {
      test(`fills and empties the balloon over ${name}`, { offers }, async ({ machine }) => {
        await bind(machine);
        await reach(machine, 700);
        await reach(machine, 300);
        await reach(machine, 0);
        expect(machine.system.audit()).toEqual([]);
      });
    }

    for (const behaviour of BEHAVIOURS) {
      test(`that behaves as that of ${behaviour}`, { driver: { behaviour } }, async ({
        machine,
      }) => {
        await bind(machine);
        await reach(machine, 512);
        await reach(machine, 0);
        expect(machine.system.audit()).toEqual([]);
      });
    }

    test('accepts all that is offered and of use', {
      offers: EVERYTHING,
      strategy: 'alloc',
    }, async (bench) => {
      const { driver } = bench.machine.system;
      await bind(bench.machine);
      for (const feature of [
        BalloonFeature.STATS_VQ,
        BalloonFeature.DEFLATE_ON_OOM,
        BalloonFeature.FREE_PAGE_HINT,
        BalloonFeature.PAGE_REPORTING,
      ]) {
        expect(hasFeature(driver.features, feature)).toBe(true);
      }
      // Nothing fills free pages in this guest.
      expect(hasFeature(driver.features, BalloonFeature.PAGE_POISON)).toBe(false);
    });

    test('follows a target that changes under way', {}, async ({ machine }) => {
      await bind(machine);
      await machine.control.setTarget(1500);
      await machine.until(() => machine.system.driver.numPages > 0, 'the first pages');
      await reach(machine, 200);
      expect(machine.system.audit()).toEqual([]);
    });

    test('finds a target that was set before it came', {}, async ({ machine }) => {
      await machine.control.setTarget(300);
      await bind(machine);
      await machine.until(() => machine.system.driver.numPages === 300, 'the balloon');
    });

    test('gives up the content of what it inflates', {}, async ({ machine }) => {
      await bind(machine);
      const free = freePages(machine);
      for (const pfn of free) machine.fill(pfn, 1, contentWord(pfn));
      await reach(machine, 600);
      let taken = 0;
      for (const pfn of free) {
        const word = await machine.contentOf(pfn);
        expect([0, contentWord(pfn)]).toContain(word);
        if (word === 0) taken++;
      }
      expect(taken).toBe(600);
    });

    test('reports statistics', {}, async ({ machine }) => {
      await bind(machine);
      await machine.control.setStatsPollingInterval(1);
      const { mm } = machine.system;
      await machine.until(
        async () => (await machine.control.guestStats()).stats['stat-free-memory'] !== null,
        'statistics',
      );
      const { stats } = await machine.control.guestStats();
      expect(stats['stat-free-memory']).toBe(mm.freePages() * PAGE_SIZE_BYTES);
      expect(stats['stat-total-memory']).toBeGreaterThan(mm.freePages() * PAGE_SIZE_BYTES);
    });

    const poisons = { offers: EVERYTHING, mm: { pagePoison: true } };
    test('says what it fills free pages with', poisons, async ({ machine, puppet, run }) => {
      await bind(machine);
      expect(hasFeature(machine.system.driver.features, BalloonFeature.PAGE_POISON)).toBe(true);
      expect(await run(() => puppet.read('poison_val'))).toBe(0xaaaa_aaaa);
    });

    // A report takes 32 blocks off the free lists at once: the kernel wants more than that to be free.
    const reports = { offers: { pageReporting: true }, ramPages: 65536 };
    test('reports free blocks, and the device takes them', reports, async ({ machine }) => {
      const blocks = freePages(machine).filter((pfn) => pfn % 512 === 0);
      for (const pfn of blocks) machine.fill(pfn, 1, contentWord(pfn));
      await bind(machine);
      await machine.until(async () => {
        for (const pfn of blocks) if ((await machine.contentOf(pfn)) !== 0) return false;
        return true;
      }, 'a report of each free block');
      expect(machine.system.audit()).toEqual([]);
    });

    test('can be removed, and come again', {
      offers: EVERYTHING,
      strategy: 'alloc',
    }, async (bench) => {
      const { machine, run } = bench;
      const { driver } = machine.system;
      await bind(machine);
      await reach(machine, 300);
      expect(await run(() => driver.remove())).toBeNull();
      expect(await run(() => machine.transport.getStatus())).toBe(0);
      expect(await run(() => driver.probe())).toBeNull();
      // The target is still what it was.
      await machine.until(() => driver.numPages === 300, 'the balloon of the second life');
      await reach(machine, 0);
      expect(machine.system.audit()).toEqual([]);
    });
  });

  describe('migration under the driver', () => {
    for (const strategy of STRATEGIES) {
      const options: MachineOptions = { offers: { freePageHint: true }, strategy };
      test(
        `with hints of ${strategy}: hinted pages stay away, all others arrive`,
        options,
        async (bench) => {
          const { machine } = bench;
          await bind(machine);
          const used = populate(machine);
          const migration = await Migration.start(machine);
          await hintsAreUsed(machine);
          await migration.finish();
          const hinted = hintedBehind(machine, used);
          expect(hinted.length).toBeGreaterThan(1000);
          expect(hinted.filter((pfn) => migration.received(pfn) !== null)).toEqual([]);
          for (const pfn of used) expect(migration.received(pfn)).toBe(contentWord(pfn));
          expect(machine.system.strategy?.heldPages).toBe(0);
          expect(machine.system.audit()).toEqual([]);
        },
      );

      test(
        `with hints of ${strategy}: what is used again meanwhile arrives`,
        options,
        async (bench) => {
          const { machine } = bench;
          await bind(machine);
          populate(machine);
          const migration = await Migration.start(machine);
          await hintsAreUsed(machine);
          const reused = range(0, 200).map(() => machine.system.mm.alloc(0, GFP_TEST));
          const gotten = reused.filter((pfn) => pfn >= 0);
          for (const pfn of gotten) machine.fill(pfn, 1, pfn + 0x100_0000);
          await migration.finish();
          for (const pfn of gotten) expect(migration.received(pfn)).toBe(pfn + 0x100_0000);
          expect(gotten.length > 0 || strategy === 'alloc').toBe(true);
        },
      );

      test(
        `with hints of ${strategy}: a second migration hints anew`,
        options,
        async ({ machine }) => {
          await bind(machine);
          const used = populate(machine);
          const first = await Migration.start(machine);
          await hintsAreUsed(machine);
          await machine.control.cancelMigration();
          await first.finish('cancelled');
          const rounds = machine.system.driver.hinting?.counters.hint_rounds ?? 0;
          const second = await Migration.start(machine);
          await hintsAreUsed(machine, rounds);
          await second.finish();
          for (const pfn of used) expect(second.received(pfn)).toBe(contentWord(pfn));
          const hinted = hintedBehind(machine, used);
          expect(hinted.filter((pfn) => second.received(pfn) !== null)).toEqual([]);
        },
      );
    }

    test('without hinting every page is sent', {}, async ({ machine }) => {
      await bind(machine);
      const used = populate(machine);
      const migration = await Migration.start(machine);
      await migration.finish();
      for (const pfn of used) expect(migration.received(pfn)).toBe(contentWord(pfn));
      expect(migration.content.size).toBe(machine.ramPages);
    });

    test('inflated pages are sent as zero pages', {}, async ({ machine }) => {
      await bind(machine);
      const free = freePages(machine);
      for (const pfn of free) machine.fill(pfn, 1, contentWord(pfn));
      await reach(machine, 600);
      const migration = await Migration.start(machine);
      await migration.finish();
      expect(free.filter((pfn) => migration.received(pfn) === 0).length).toBe(600);
    });

    test('a page that is written again and again arrives as it is in the end', {}, async ({
      machine,
    }) => {
      await bind(machine);
      const used = populate(machine);
      const migration = await Migration.start(machine);
      for (let i = 1; i <= 5; i++) {
        await machine.settle();
        for (const pfn of used) machine.fill(pfn, 1, contentWord(pfn) + i * 0x10_0000);
      }
      await migration.finish();
      for (const pfn of used) {
        expect(migration.received(pfn)).toBe(contentWord(pfn) + 5 * 0x10_0000);
      }
    });
  });
}

async function bind(machine: ConformanceMachine): Promise<void> {
  const { driver } = machine.system;
  await machine.run(function* () {
    driver.start();
    yield { kind: 'sleep', ns: 0 };
  });
  await machine.until(() => driver.state !== 'probing', 'the probe');
  expect(driver.failure).toBeNull();
}

/** Both sides agree on so many pages. */
async function reach(machine: ConformanceMachine, pages: number): Promise<void> {
  await machine.control.setTarget(pages);
  await machine.until(
    async () =>
      machine.system.driver.numPages === pages && (await machine.control.actualPages()) === pages,
    `a balloon of ${pages} pages`,
  );
}

/** Memory in use, as low as it can be: what a slow migration is busy with before it comes to the rest. */
function populate(machine: ConformanceMachine): Pfn[] {
  const { mm } = machine.system;
  const blocks: Pfn[] = [];
  for (;;) {
    const pfn = mm.alloc(9, GFP_TEST);
    if (pfn < 0) break;
    blocks.push(pfn);
  }
  blocks.sort((a, b) => a - b);
  for (const pfn of blocks.splice(2)) mm.free(pfn, 9);
  const used = blocks.flatMap((pfn) => range(pfn, 512));
  for (const pfn of used) machine.fill(pfn, 1, contentWord(pfn));
  return used;
}

function freePages({ system, ramPages }: ConformanceMachine): Pfn[] {
  return range(0, ramPages).filter((pfn) => system.mm.isFree(pfn));
}

/** Hinted pages that the migration cannot have reached before the hints came. */
function hintedBehind({ system, ramPages }: ConformanceMachine, used: readonly Pfn[]): Pfn[] {
  const from = Math.max(...used) + 1;
  return range(from, ramPages - from).filter((pfn) => system.hints.historyOf(pfn).length > 0);
}

/** The device has taken every hint of a round later than `rounds`. */
async function hintsAreUsed(machine: ConformanceMachine, rounds = 0): Promise<void> {
  const counters = machine.system.driver.hinting?.counters;
  await machine.until(() => (counters?.hint_rounds ?? 0) > rounds, 'a round');
  let seen = -1;
  await machine.until(async () => {
    const before = seen;
    seen = counters?.hint_blocks ?? 0;
    await machine.settle();
    return seen > 0 && seen === before;
  }, 'the hints of a round');
}

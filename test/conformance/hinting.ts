/** Free page hinting: the state machine behind the command id (virtio 1.4 §5.5.6.5). */
import { describe, expect } from 'vitest';
import { BalloonFeature, featureMask, HintCommand } from '../../protocol/index.ts';
import { PAGE_SIZE_BYTES, pfnToGpa } from '../../shared/index.ts';
import { type Bench, type StartMachine, suiteOf } from './fixture.ts';
import {
  hint,
  Migration,
  openRound,
  pagesBehindFiller,
  requestedRound,
  sendId,
} from './migration.ts';
import { contentWord, le32s, NEEDS_RESET, range } from './puppet.ts';

const FIRST_ID = 0x8000_0001;
const hinting = { offers: { freePageHint: true } };

export function hintingTests(start: StartMachine): void {
  const { it } = suiteOf(start);

  describe('command ids', () => {
    it(
      'a migration asks for hints under a new id, and the driver is told',
      hinting,
      async (bench) => {
        const { id, migration } = await requestedRound(bench);
        expect(id).toBe(FIRST_ID);
        expect(bench.machine.interrupts.config).toBeGreaterThan(0);
        await migration.finish();
      },
    );

    // spec: 5.5.6.5.2-device-2
    it('no id comes twice', hinting, async (bench) => {
      const ids: number[] = [];
      for (let i = 0; i < 3; i++) {
        const { id, migration } = await requestedRound(bench);
        ids.push(id);
        await bench.machine.control.cancelMigration();
        await migration.finish('cancelled');
        await writeBackToStop(bench);
      }
      expect(new Set(ids).size).toBe(3);
      expect([...ids].sort((a, b) => a - b)).toEqual(ids);
    });

    // spec: 5.5.6.5.2-device-6
    it('a completed migration says DONE', hinting, async (bench) => {
      const { migration } = await openRound(bench);
      await migration.finish();
      expect(await readId(bench)).toBe(HintCommand.DONE);
    });

    it('a migration that nobody hinted for says DONE as well', hinting, async (bench) => {
      const { migration } = await requestedRound(bench);
      await migration.finish();
      expect(await readId(bench)).toBe(HintCommand.DONE);
    });

    it('a cancelled migration says DONE', hinting, async (bench) => {
      const { migration } = await openRound(bench);
      await bench.machine.control.cancelMigration();
      await migration.finish('cancelled');
      expect(await readId(bench)).toBe(HintCommand.DONE);
    });

    const decline = featureMask(BalloonFeature.FREE_PAGE_HINT);
    it('a driver that declined hinting is not asked', { ...hinting, decline }, async (bench) => {
      const { machine } = bench;
      const before = machine.interrupts.config;
      const migration = await Migration.start(machine);
      await machine.settle();
      expect(await readId(bench)).toBe(HintCommand.STOP);
      await migration.finish();
      expect(machine.interrupts.config).toBe(before);
    });

    it('the id reads STOP once the round has begun', hinting, async (bench) => {
      const { migration } = await openRound(bench);
      expect(await readId(bench)).toBe(HintCommand.STOP);
      await migration.finish();
    });

    it(
      'a target that changes in a round is told, and the round goes on',
      hinting,
      async (bench) => {
        const { machine } = bench;
        const pfn = pagesBehindFiller(bench, 0);
        const { migration } = await openRound(bench);
        const before = machine.interrupts.config;
        await machine.control.setTarget(10);
        await machine.until(() => machine.interrupts.config > before, 'the target is told');
        await hint(bench, pfn);
        await migration.finish();
        expect(migration.received(pfn)).toBeNull();
      },
    );
  });

  describe('hints', () => {
    it('keep pages out of the stream, and no others', hinting, async (bench) => {
      const pfn = pagesBehindFiller(bench, 6);
      const { migration } = await openRound(bench);
      expect(await hint(bench, pfn + 8, 16)).toBe(0);
      await migration.finish();
      for (const one of range(pfn, 64)) {
        const hinted = one >= pfn + 8 && one < pfn + 24;
        expect(migration.received(one)).toBe(hinted ? null : contentWord(one));
      }
    });

    it('of one page each, a hundred of them', hinting, async (bench) => {
      const { puppet, run } = bench;
      const pfn = pagesBehindFiller(bench, 8);
      const { migration } = await openRound(bench);
      const hinted = range(0, 100).map((i) => pfn + 2 * i);
      await run(function* () {
        for (const one of hinted) puppet.add('free_page_vq', { in: [puppet.segment(one)] });
        yield* puppet.kick('free_page_vq');
        for (let i = 0; i < hinted.length; i++) yield* puppet.used('free_page_vq');
      });
      await migration.finish();
      for (const one of range(pfn, 200)) {
        expect(migration.received(one)).toBe(hinted.includes(one) ? null : contentWord(one));
      }
    });

    it('may be many in one chain', hinting, async (bench) => {
      const { puppet, run } = bench;
      const pfn = pagesBehindFiller(bench, 5);
      const { migration } = await openRound(bench);
      const segments = range(0, 16).map((i) => puppet.segment(pfn + 2 * i));
      await run(() => puppet.exchange('free_page_vq', { in: segments }));
      await migration.finish();
      for (const one of range(pfn, 32)) {
        expect(migration.received(one)).toBe((one - pfn) % 2 === 0 ? null : contentWord(one));
      }
    });

    it('may share a chain with the id', hinting, async (bench) => {
      const { puppet, run } = bench;
      const pfn = pagesBehindFiller(bench, 1);
      const { id, migration } = await requestedRound(bench);
      const buffer = { out: [le32s([id])], in: [puppet.segment(pfn)] };
      await run(() => puppet.exchange('free_page_vq', buffer));
      await migration.finish();
      expect(migration.received(pfn)).toBeNull();
      expect(migration.received(pfn + 1)).toBe(contentWord(pfn + 1));
    });

    it('of one page twice count once', hinting, async (bench) => {
      const pfn = pagesBehindFiller(bench, 0);
      const { migration } = await openRound(bench);
      await hint(bench, pfn);
      await hint(bench, pfn);
      await migration.finish();
      expect(migration.received(pfn)).toBeNull();
    });

    it('a page that is written after its hint is sent', hinting, async (bench) => {
      const { machine } = bench;
      const pfn = pagesBehindFiller(bench, 2);
      const { migration } = await openRound(bench);
      await hint(bench, pfn, 4);
      machine.fill(pfn + 2, 1, 0x1234_5678);
      await migration.finish();
      expect(range(pfn, 4).map((one) => migration.received(one))).toEqual([
        null,
        null,
        0x1234_5678,
        null,
      ]);
    });

    it('leave the content of a page alone', hinting, async (bench) => {
      const { machine } = bench;
      const pfn = pagesBehindFiller(bench, 0);
      const { migration } = await openRound(bench);
      await hint(bench, pfn);
      await migration.finish();
      expect(await machine.contentOf(pfn)).toBe(contentWord(pfn));
    });
  });

  describe('hints that do not count', () => {
    it('come before any migration', hinting, async (bench) => {
      const pfn = pagesBehindFiller(bench, 0);
      expect(await hint(bench, pfn)).toBe(0);
      const migration = await Migration.start(bench.machine);
      await migration.finish();
      expect(migration.received(pfn)).toBe(contentWord(pfn));
    });

    it('come before the id', hinting, async (bench) => {
      const pfn = pagesBehindFiller(bench, 0);
      const { migration } = await requestedRound(bench);
      expect(await hint(bench, pfn)).toBe(0);
      await migration.finish();
      expect(migration.received(pfn)).toBe(contentWord(pfn));
    });

    // spec: 5.5.6.5.2-device-3
    it('come under another id', hinting, async (bench) => {
      const pfn = pagesBehindFiller(bench, 1);
      const { id, migration } = await requestedRound(bench);
      await sendId(bench, id + 1);
      await hint(bench, pfn);
      // The round is still to be had.
      await sendId(bench, id);
      await hint(bench, pfn + 1);
      await migration.finish();
      expect(migration.received(pfn)).toBe(contentWord(pfn));
      expect(migration.received(pfn + 1)).toBeNull();
    });

    it('come after the driver said STOP', hinting, async (bench) => {
      const pfn = pagesBehindFiller(bench, 1);
      const { migration } = await openRound(bench);
      await hint(bench, pfn);
      await sendId(bench, HintCommand.STOP);
      await hint(bench, pfn + 1);
      await migration.finish();
      expect(migration.received(pfn)).toBeNull();
      expect(migration.received(pfn + 1)).toBe(contentWord(pfn + 1));
    });

    it('come after the driver sent the id a second time', hinting, async (bench) => {
      const pfn = pagesBehindFiller(bench, 1);
      const { id, migration } = await openRound(bench);
      await hint(bench, pfn);
      await sendId(bench, id);
      await hint(bench, pfn + 1);
      await migration.finish();
      expect(migration.received(pfn)).toBeNull();
      expect(migration.received(pfn + 1)).toBe(contentWord(pfn + 1));
    });

    it('come after the migration, for the next one', hinting, async (bench) => {
      const pfn = pagesBehindFiller(bench, 0);
      const first = await openRound(bench);
      await first.migration.finish();
      await hint(bench, pfn);
      const second = await Migration.start(bench.machine);
      await second.finish();
      expect(second.received(pfn)).toBe(contentWord(pfn));
    });

    it('come under the id of an earlier migration', hinting, async (bench) => {
      const { machine } = bench;
      const pfn = pagesBehindFiller(bench, 0);
      const first = await openRound(bench);
      await machine.control.cancelMigration();
      await first.migration.finish('cancelled');
      await writeBackToStop(bench);
      const second = await requestedRound(bench);
      await sendId(bench, first.id);
      await hint(bench, pfn);
      await second.migration.finish();
      expect(second.migration.received(pfn)).toBe(contentWord(pfn));
    });

    it('are shorter than a page', hinting, async (bench) => {
      const { puppet, run } = bench;
      const pfn = pagesBehindFiller(bench, 0);
      const { migration } = await openRound(bench);
      const segment = { gpa: pfnToGpa(pfn) + 256, lengthBytes: 1024 };
      await run(() => puppet.exchange('free_page_vq', { in: [segment] }));
      await migration.finish();
      expect(migration.received(pfn)).toBe(contentWord(pfn));
    });

    it('begin and end inside a page', hinting, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = pagesBehindFiller(bench, 2);
      const { migration } = await openRound(bench);
      const half = PAGE_SIZE_BYTES / 2;
      const segment = { gpa: pfnToGpa(pfn) + half, lengthBytes: 2 * PAGE_SIZE_BYTES + half };
      await run(() => puppet.exchange('free_page_vq', { in: [segment] }));
      await migration.finish();
      const skipped = range(0, 4).filter((i) => migration.received(pfn + i) === null);
      const expected = { nothing: [], 'page 1': [1], 'pages 0 and 1': [0, 1] };
      expect(skipped).toEqual(expected[machine.traits.get('unalignedHintKeepsOut')]);
    });

    it('reach beyond the end of memory', hinting, async (bench) => {
      const { machine, puppet, run } = bench;
      const last = machine.ramPages - 1;
      machine.fill(last, 1, contentWord(last));
      pagesBehindFiller(bench, 0);
      const { migration } = await openRound(bench);
      await run(() => puppet.send('free_page_vq', { in: [puppet.segment(last, 2)] }));
      await machine.settle();
      const status = await run(() => machine.transport.getStatus());
      await migration.finish();
      const counted = migration.received(last) === null;
      expect(counted).toBe(machine.traits.get('hintClippedToMemory'));
      expect((status & NEEDS_RESET) !== 0).toBe(false);
    });
  });

  describe('a driver that breaks the rules of hinting', () => {
    // spec: 2.1.2-device-2, 2.1.2-device-3
    it(
      'sends an id of two bytes: the device needs a reset, and says so',
      hinting,
      async (bench) => {
        const { machine, puppet, run } = bench;
        const before = machine.interrupts.config;
        await run(() => puppet.send('free_page_vq', { out: [new Uint8Array(2)] }));
        await machine.settle();
        expect((await run(() => machine.transport.getStatus())) & NEEDS_RESET).toBe(NEEDS_RESET);
        expect(puppet.queue('free_page_vq').getUsed()).toBe(-1);
        expect(machine.interrupts.config).toBeGreaterThan(before);
      },
    );

    it('sends an id of eight bytes', hinting, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = pagesBehindFiller(bench, 0);
      const { id, migration } = await requestedRound(bench);
      await run(() => puppet.send('free_page_vq', { out: [le32s([id, 0])] }));
      await machine.settle();
      const status = await run(() => machine.transport.getStatus());
      const accepted = machine.traits.get('longHintCommandAccepted');
      expect((status & NEEDS_RESET) === 0).toBe(accepted);
      if (accepted) await hint(bench, pfn);
      await migration.finish();
      expect(migration.received(pfn)).toBe(accepted ? null : contentWord(pfn));
    });

    it('hints what is not memory', hinting, async (bench) => {
      const { machine, puppet, run } = bench;
      const { migration } = await openRound(bench);
      const far = { gpa: pfnToGpa(machine.ramPages + 4096), lengthBytes: 4 * PAGE_SIZE_BYTES };
      await run(() => puppet.send('free_page_vq', { in: [far] }));
      await machine.settle();
      const broken = ((await run(() => machine.transport.getStatus())) & NEEDS_RESET) !== 0;
      expect(broken).toBe(machine.traits.get('unmappedSegmentBreaks'));
      await migration.finish();
    });

    it('resets the device in the middle of a round', hinting, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = pagesBehindFiller(bench, 1);
      const { migration } = await openRound(bench);
      await hint(bench, pfn);
      await run(() => puppet.boot());
      await hint(bench, pfn + 1);
      expect(await readId(bench)).toBe(HintCommand.STOP);
      await migration.finish();
      expect(migration.received(pfn)).toBeNull();
      expect(migration.received(pfn + 1)).toBe(contentWord(pfn + 1));
      expect((await run(() => machine.transport.getStatus())) & NEEDS_RESET).toBe(0);
    });
  });
}

function readId({ puppet, run }: Bench): Promise<number> {
  return run(() => puppet.read('free_page_hint_cmd_id'));
}

/** The next id is waited for by a change from STOP: let a new life begin with it. */
async function writeBackToStop({ puppet, run }: Bench): Promise<void> {
  await run(() => puppet.boot());
}

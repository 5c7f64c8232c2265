/** A migration that gets on while other things happen: time passes, balloons grow, monitors wait. */
import { describe, expect, test } from 'vitest';
import { launch } from '../../lab/index.ts';
import { MIB, NS_PER_MS, NS_PER_S } from '../../shared/index.ts';

const HOUR_NS = 3600 * NS_PER_S;
/** Some 30 MiB have content: a second and a half. */
const SLOW = { bandwidthBytesPerS: 20 * MIB };

function machine(strategy: 'none' | 'alloc' = 'alloc') {
  return launch({ memoryBytes: 256 * MIB, strategy, mm: { initOnAlloc: false } });
}

describe('a migration in the background', () => {
  test('gets on as time passes, and the guest is at the destination when it has moved', async () => {
    await using vm = await machine();
    await vm.boot();
    const source = vm.pids.host;
    await vm.startMigration(SLOW);
    const early = await vm.waitFor(100 * NS_PER_MS);
    expect([early.migration, vm.pids.host]).toEqual(['active', source]);
    const late = await vm.waitFor(10 * NS_PER_S);
    expect(late.migration).toBe('none');
    expect(vm.pids.host).not.toBe(source);
    // The time that was asked for has passed, at whichever host.
    expect(late.now_ns - early.now_ns).toBe(10 * NS_PER_S);
    const report = await vm.finishMigration();
    expect([report.migration.status, report.memory.lost_pages]).toEqual(['completed', 0]);
    expect(await vm.verify()).toEqual([]);
  });

  test('ends as one that is waited for at once', async () => {
    const reports = [];
    for (const isWaitedFor of [true, false]) {
      await using vm = await machine();
      await vm.boot();
      if (isWaitedFor) reports.push(await vm.migrate(SLOW));
      else {
        await vm.startMigration(SLOW);
        for (let i = 0; i < 7; i++) await vm.waitFor(33 * NS_PER_MS);
        reports.push(await vm.finishMigration());
      }
    }
    expect(reports[1]).toEqual(reports[0]);
  });

  test('is waited for by pass and by switchover, at the very instant', async () => {
    await using vm = await machine('none');
    const passes: number[] = [];
    vm.events.on('MIGRATION_PASS', ({ at_ns }) => passes.push(at_ns));
    await vm.boot();
    await vm.startMigration(SLOW);
    for (const pass of [1, 2]) {
      const { now_ns } = await vm.waitForEnd({ kind: 'pass', pass }, HOUR_NS);
      expect(now_ns - passes[pass - 1]!).toBeLessThan(NS_PER_MS);
      expect(passes.length).toBe(pass);
    }
    await vm.waitForEnd({ kind: 'migration' }, HOUR_NS);
    expect((await vm.finishMigration()).migration.status).toBe('completed');
  });

  test('goes on while the balloon grows, and hints end for it', async () => {
    await using vm = await machine();
    await vm.boot();
    await vm.startMigration(SLOW);
    await vm.waitFor(50 * NS_PER_MS);
    expect((await vm.inflate(64 * MIB)).actual_pages).toBe(16_384);
    const { migration, memory } = await vm.finishMigration();
    expect([migration.status, memory.lost_pages]).toEqual(['completed', 0]);
    expect((await vm.status()).actual_pages).toBe(16_384);
    expect((await vm.deflate(64 * MIB)).actual_pages).toBe(0);
    expect(await vm.verify()).toEqual([]);
  });

  test('of a stopped guest leaves it stopped', async () => {
    await using vm = await machine('none');
    const events: string[] = [];
    vm.events.on('STOP', () => events.push('stop'));
    vm.events.on('RESUME', () => events.push('resume'));
    await vm.boot();
    await vm.stop();
    expect((await vm.migrate()).migration.status).toBe('completed');
    expect(events).toEqual(['stop']);
    await vm.cont();
    expect(events).toEqual(['stop', 'resume']);
    expect(await vm.verify()).toEqual([]);
  });
});

test.each([true, false])(
  'a round of hinting is waited for until its end and no longer (acknowledged: %s)',
  async (acknowledges) => {
    await using vm = await launch({
      memoryBytes: 64 * MIB,
      strategy: 'alloc',
      mm: { initOnAlloc: false },
      device: { profile: 'firecracker-1.16' },
      costs: { configWorkNs: 1000 },
    });
    await vm.boot();
    const { nowNs } = vm;
    await vm.hint(acknowledges);
    expect(vm.nowNs - nowNs).toBeGreaterThan(0);
    expect(vm.nowNs - nowNs).toBeLessThan(20 * NS_PER_MS);
    expect((await vm.status()).counters['guest.hint_blocks']).toBeGreaterThan(0);
  },
);

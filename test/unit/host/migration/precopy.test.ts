/** Precopy against a real guest of 64 MiB in the same process. */
import { describe, expect, test } from 'vitest';
import type { MigrateParams, MigrationReport } from '../../../../protocol/index.ts';
import { MIB, NS_PER_MS, NS_PER_S } from '../../../../shared/index.ts';
import { inProcess, MIGRATE } from '../../../support/in-process.ts';
import { type TinyEvent, tinyRecording } from '../../../support/tiny-recording.ts';

const FRAMES = 16_384;
/** 4096 frames hold data, the others are free and zero. */
const DATA_PAGES = 4096;
const FREE = [DATA_PAGES, FRAMES - DATA_PAGES] as const;

/** `pages` pages of a ring are freed and allocated anew each `everyNs`. */
function churn(pages: number, everyNs: number, forNs: number): TinyEvent[] {
  const events: TinyEvent[] = [];
  for (let round = 0; round * everyNs < forNs; round++) {
    for (let i = 0; i < pages; i++) {
      const pfn = 8192 + i;
      const atNs = round * everyNs;
      if (round > 0) events.push({ atNs, kind: 'free', pfn });
      events.push({ atNs, kind: 'alloc', pfn });
    }
  }
  return events;
}

async function migrate(
  params: Partial<MigrateParams> = {},
  options: { events?: TinyEvent[]; strategy?: 'none' | 'alloc' | 'iterate' | 'oracle' } = {},
): Promise<{ report: MigrationReport; problems: readonly string[] }> {
  const recording = tinyRecording({
    frameCount: FRAMES,
    free: [FREE],
    events: options.events ?? [],
  });
  const { hypervisor } = await inProcess({
    recording,
    guest: { strategy: options.strategy ?? 'none' },
  });
  await hypervisor.runUntil(50 * NS_PER_MS);
  hypervisor.console('replay');
  const report = await hypervisor.migrate({ ...MIGRATE, ...params });
  return { report, problems: await hypervisor.verify() };
}

describe('precopy of a guest at rest', () => {
  test('sends every page once, zero pages as such, and what is sent later is little', async () => {
    const { report } = await migrate();
    const { migration, memory } = report;
    expect(migration.status).toBe('completed');
    expect(memory.lost_pages).toBe(0);
    expect(migration.normal_pages).toBeGreaterThanOrEqual(DATA_PAGES);
    expect(migration.normal_pages).toBeLessThan(DATA_PAGES + 1000);
    expect(migration.duplicate_pages).toBeGreaterThan(FREE[1] - 100);
    // All is sent within the first window, before there is a threshold: setup and switchover.
    expect(migration.dirty_sync_count).toBe(2);
    const { transferred_bytes, normal_pages, duplicate_pages } = migration;
    const pageBytes = normal_pages * (4096 + 8) + duplicate_pages * 9;
    expect(transferred_bytes - pageBytes).toBeGreaterThan(0);
    expect(transferred_bytes - pageBytes).toBeLessThan(8 * 1000);
  });

  test.each([
    ['tcg', 'none', 'none'],
    ['kvm-bitmap', 'none', 'none'],
    ['tcg', 'none', 'iterate'],
    ['kvm-bitmap', 'none', 'iterate'],
    ['tcg', 'none', 'alloc'],
    ['kvm-bitmap', 'none', 'oracle'],
    ['kvm-bitmap', 'clear-at-id', 'iterate'],
    ['kvm-bitmap', 'clear-at-id', 'alloc'],
  ] as const)(
    'loses nothing with the log cleared %s and strategy %s while memory is replaced',
    async (dirtyLog, hintRemedy, strategy) => {
      const events = churn(64, 20 * NS_PER_MS, 2 * NS_PER_S);
      const { report, problems } = await migrate(
        { dirtyLog, hintRemedy, bandwidthBytesPerS: 40 * MIB, downtimeLimitMs: 60 },
        { events, strategy },
      );
      expect(report.migration.status).toBe('completed');
      expect(report.memory.lost_pages).toBe(0);
      expect(problems).toEqual([]);
    },
  );
});

describe('the bandwidth limit', () => {
  test.each([10, 20, 80])('of %i MiB/s sets how long a migration takes', async (mibPerS) => {
    const { report } = await migrate({ bandwidthBytesPerS: mibPerS * MIB, downtimeLimitMs: 100 });
    const { transferred_bytes, total_ms } = report.migration;
    const expectedMs = (transferred_bytes / (mibPerS * MIB)) * 1000;
    // The last window is not waited for, and each may end one page late.
    expect(total_ms).toBeGreaterThan(expectedMs - 110);
    expect(total_ms).toBeLessThan(expectedMs + 110);
  });

  test('is exceeded by at most one page a window of 100 ms', async () => {
    const bandwidthBytesPerS = 10 * MIB;
    const recording = tinyRecording({ frameCount: FRAMES, free: [FREE], events: [] });
    const { hypervisor } = await inProcess({ recording });
    const { vmm } = hypervisor;
    // Records that the migration reads, by the time at which it reads them.
    const reads: { at: number; pages: number }[] = [];
    const readRecords = vmm.readRecords.bind(vmm);
    const startNs = 50 * NS_PER_MS;
    await hypervisor.runUntil(startNs);
    let zero = 0;
    vmm.readRecords = async (ranges) => {
      const records = await readRecords(ranges);
      reads.push({ at: vmm.now, pages: records.length });
      zero += records.filter((tag) => tag === 0).length;
      return records;
    };
    const report = await hypervisor.migrate({
      ...MIGRATE,
      bandwidthBytesPerS,
      downtimeLimitMs: 100,
    });
    expect(zero).toBeGreaterThan(0);
    const windows = Math.ceil(report.migration.total_ms / 100);
    const busy = new Set(
      reads.filter(({ at }) => at > startNs).map(({ at }) => Math.floor((at - startNs) / 1e8)),
    );
    // One MiB of pages a window: the source reads in each of them and not beyond.
    expect(busy.size).toBeGreaterThanOrEqual(windows - 2);
    const limit = bandwidthBytesPerS / 10;
    expect(report.migration.transferred_bytes).toBeLessThanOrEqual(
      windows * (limit + 4096 + 8 + 16),
    );
  });
});

describe('convergence', () => {
  test('needs more syncs the less downtime is allowed', async () => {
    const events = churn(512, 100 * NS_PER_MS, 6 * NS_PER_S);
    const params = { bandwidthBytesPerS: 40 * MIB };
    const patient = await migrate({ ...params, downtimeLimitMs: 1000 }, { events });
    const strict = await migrate({ ...params, downtimeLimitMs: 20 }, { events });
    expect(patient.report.migration.dirty_sync_count).toBeLessThan(
      strict.report.migration.dirty_sync_count,
    );
    for (const { report } of [patient, strict]) expect(report.memory.lost_pages).toBe(0);
  });

  test('a hint saves what it says: the oracle sends hardly a free page', async () => {
    const events = churn(16, 10 * NS_PER_MS, NS_PER_S);
    const none = await migrate({}, { events });
    const oracle = await migrate({}, { events, strategy: 'oracle' });
    expect(none.report.migration.skipped_pages).toBe(0);
    expect(oracle.report.migration.skipped_pages).toBeGreaterThan(FREE[1] * 0.5);
    expect(oracle.report.migration.duplicate_pages).toBeLessThan(
      none.report.migration.duplicate_pages / 2,
    );
  });
});

describe('a migration that does not converge', () => {
  /** Rewrites a set of 64 pages several times in the time that it takes to send it. */
  async function hopeless(pagesPerSecond: number) {
    const events = Array.from(
      { length: 64 },
      (_, i): TinyEvent => ({ atNs: 0, kind: 'alloc', pfn: 8192 + i }),
    );
    const inPlaceDirty = { pagesPerSecond: 4 * pagesPerSecond, setPages: 64 };
    const recording = tinyRecording({
      frameCount: FRAMES,
      free: [FREE],
      events,
      header: { inPlaceDirty },
    });
    const { guest, hypervisor } = await inProcess({ recording });
    const { vmm } = hypervisor;
    await hypervisor.runUntil(50 * NS_PER_MS);
    hypervisor.console('replay');
    await hypervisor.runUntil(60 * NS_PER_MS);
    // One that nobody gives up is a failure, and not a test that never ends.
    const readRecords = vmm.readRecords.bind(vmm);
    vmm.readRecords = async (ranges) => {
      if (vmm.now > 3000 * NS_PER_S) throw new Error('nobody gives it up');
      return readRecords(ranges);
    };
    const bandwidthBytesPerS = 4096 * pagesPerSecond;
    return {
      guest,
      hypervisor,
      report: await hypervisor.migrate({ ...MIGRATE, bandwidthBytesPerS, downtimeLimitMs: 10 }),
    };
  }

  // Three passes over 16,384 pages and the firmware's 130 take 496 s at 100 pages a second.
  test.each([
    ['after 600 s', 100, 600],
    ['after three passes over memory on a slow link', 50, (3 * (FRAMES + 130)) / 50],
  ])('is cancelled %s, and the guest goes on', async (_title, pagesPerSecond, seconds) => {
    const { guest, hypervisor, report } = await hopeless(pagesPerSecond);
    const { status, total_ms, downtime_ms } = report.migration;
    expect([status, downtime_ms]).toEqual(['cancelled', 0]);
    expect(total_ms).toBeGreaterThanOrEqual(1000 * seconds);
    expect(total_ms).toBeLessThan(1000 * seconds + 1000);
    const tags = guest.system.ram.tags.slice();
    await hypervisor.runUntil(hypervisor.vmm.now + NS_PER_S);
    expect(guest.system.ram.tags).not.toEqual(tags);
    expect(await hypervisor.verify()).toEqual([]);
  });
});

test('what a device that is behind its queues still has to do is done when the guest goes on', async () => {
  const startNs = 50 * NS_PER_MS;
  async function migrateBehind(notifyNs: number) {
    const recording = tinyRecording({ frameCount: FRAMES, free: [FREE], events: [] });
    const { hypervisor } = await inProcess({
      recording,
      guest: { strategy: 'iterate' },
      costs: { notifyNs, configWorkNs: NS_PER_MS, dirtySyncPageNs: 100 },
    });
    await hypervisor.runUntil(startNs);
    const { memory } = await hypervisor.migrate({ ...MIGRATE, bandwidthBytesPerS: 100 * MIB });
    return { hypervisor, lost: memory.lost_pages, tookNs: hypervisor.vmm.now - startNs };
  }
  const { tookNs } = await migrateBehind(10 * NS_PER_S);
  // The hints are queued some milliseconds after the start: one of these meets the switchover.
  for (let earlierNs = 0; earlierNs < 5 * NS_PER_MS; earlierNs += 250_000) {
    const { hypervisor, lost } = await migrateBehind(tookNs - earlierNs);
    expect(lost, `${earlierNs} ns before the end`).toBe(0);
    // What the device had still to do is done when the guest goes on.
    await hypervisor.runUntil(hypervisor.vmm.now + NS_PER_S);
    expect(await hypervisor.verify()).toEqual([]);
    const { protocol_violations, counters } = await hypervisor.status();
    expect(protocol_violations).toBe(0);
    const looked = ['device.hints_accepted', 'device.hints_late'];
    const lookedAt = looked.reduce((sum, name) => sum + (counters[name] ?? 0), 0);
    expect(lookedAt).toBe(counters['guest.hint_blocks']);
  }
});

test('the dirty log is off after a migration', async () => {
  const { guest, hypervisor } = await inProcess();
  await hypervisor.runUntil(50 * NS_PER_MS);
  await hypervisor.migrate(MIGRATE);
  await hypervisor.runUntil(hypervisor.vmm.now + NS_PER_MS);
  const before = guest.system.ram.dirtyLog.bits.count();
  guest.system.ram.write(100);
  guest.system.ram.write(101);
  expect(guest.system.ram.dirtyLog.bits.count()).toBe(before);
});

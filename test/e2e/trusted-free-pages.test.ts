/**
 * A guest that relies on what its free pages hold: who hints them without filling them again breaks
 * it, the destination finds that, and the guest, which runs on there, finds it too.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, describe, expect, test } from 'vitest';
import { runScenario } from '../../lab/index.ts';
import { isGood } from '../../lab/runner/expectation.ts';
import type { Run } from '../../lab/runner/result.ts';
import { parseScenario } from '../../lab/scenario/load.ts';
import { MIB, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { encodeRecording, type Recording } from '../../shared/recording/index.ts';
import { tinyRecording } from '../support/tiny-recording.ts';

async function run(memory: string, mm: string, overrides: boolean): Promise<Map<string, Run>> {
  const scenario = await parseScenario(
    'trusted.yaml',
    `
machine: { memory: ${memory}, vcpus: 1 }
mm: { init_on_alloc: false, ${mm}: true }
strategies: [none, iterate, alloc, oracle]
driver: { hint_trusted_free_pages: ${overrides} }
steps:
  - boot
  # Written, sent and freed: its pages hold old data wherever a hint leaves them out.
  - process: { name: old, anonymous: 32MiB }
  - exit: old
  - migrate: { bandwidth: 100MiB/s }
  - process: { name: new, anonymous: 96MiB }
`,
  );
  const runs = await runScenario(scenario, { jobs: 2 });
  return new Map(runs.map((one) => [one.strategy, one]));
}

describe.each([
  ['256MiB', 'page_poison'],
  ['1GiB', 'page_poison'],
])('a guest of %s with %s', (memory, mm) => {
  test('is not hinted by strategies that would break it, and the notes say why', async () => {
    const runs = await run(memory, mm, false);
    for (const strategy of ['iterate', 'oracle']) {
      expect(runs.get(strategy)).toMatchObject({
        hints: { pages: 0 },
        notes: [expect.stringContaining('not used')],
      });
    }
    expect(runs.get('alloc')?.hints?.pages).toBeGreaterThan(10_000);
    for (const one of runs.values()) {
      expect([one.memory?.lost_pages, one.memory?.broken_free_pages]).toEqual([0, 0]);
      expect([one.guest?.corruptions, isGood(one)]).toEqual([0, true]);
    }
  });

  test('is broken by them when it is told to hint all the same, and finds it by itself', async () => {
    const runs = await run(memory, mm, true);
    for (const strategy of ['iterate', 'oracle']) {
      const one = runs.get(strategy)!;
      expect(one.memory?.broken_free_pages).toBeGreaterThan(10_000);
      expect(one.guest?.corruptions).toBeGreaterThan(10_000);
      expect(isGood(one)).toBe(false);
    }
    for (const strategy of ['none', 'alloc']) {
      const one = runs.get(strategy)!;
      expect([one.memory?.broken_free_pages, one.guest?.corruptions]).toEqual([0, 0]);
      expect(isGood(one)).toBe(true);
    }
  });
});

/**
 * 64 MiB that are in use when the migration begins, are sent, and are freed, and so zeroed, while what
 * lies behind them is on its way: the hints of the next round come for pages that the destination has.
 */
function freedWhileSent(): Recording {
  const [kernelPages, blockPages, blocks] = [8192, 512, 32];
  const [allocNs, migrateNs, freeNs] = [1e8, 5e8, 17e8];
  const users = { first: kernelPages, pages: blockPages * blocks };
  const behind = { first: 40_960, pages: 16_384 };
  const pfns = Array.from({ length: blocks }, (_, i) => users.first + i * blockPages);
  return tinyRecording({
    frameCount: (256 * MIB) / PAGE_SIZE_BYTES,
    free: [
      [users.first, behind.first - users.first],
      [behind.first + behind.pages, 65_536 - behind.first - behind.pages],
    ],
    events: [
      ...pfns.map((pfn) => ({ atNs: allocNs, kind: 'alloc' as const, pfn, order: 9 })),
      ...pfns.map((pfn) => ({ atNs: freeNs, kind: 'free' as const, pfn, order: 9 })),
    ],
    header: { migrateAtNs: migrateNs, migratedAtNs: 3e9, traceEndNs: 3e9 },
  });
}

describe('a guest with init_on_free that frees its memory while it is migrated', () => {
  const folder = mkdtempSync(`${tmpdir()}/init-on-free-`);
  afterAll(() => rmSync(folder, { recursive: true }));
  const small = `${folder}/256-mib.ballast`;
  writeFileSync(small, encodeRecording(freedWhileSent()));

  const guests = [
    ['256MiB', small, '{ until: migrate_at }', '100MiB'],
    ['1GiB', 'churn-1g', '500ms', '500MiB'],
  ] as const;

  async function migrated(recording: string, wait: string, used: string, overrides: boolean) {
    const text = `
recording: ${recording}
mm: { init_on_alloc: false, init_on_free: true }
strategies: [iterate, oracle, alloc]
driver: { hint_trusted_free_pages: ${overrides} }
steps:
  - boot
  - workload: recording
  - wait: ${wait}
  - migrate
  - process: { name: new, anonymous: ${used} }
`;
    return runScenario(await parseScenario('init-on-free.yaml', text), { jobs: 2 });
  }

  test.each(guests)('of %s is broken by hints, and finds it', async (_size, ...guest) => {
    const [iterate, oracle, alloc] = await migrated(...guest, true);
    for (const one of [iterate, oracle]) {
      expect(one?.memory?.broken_free_pages).toBeGreaterThan(10_000);
      expect(one?.guest?.corruptions).toBeGreaterThan(1000);
      expect(isGood(one!)).toBe(false);
    }
    expect([alloc?.memory?.broken_free_pages, alloc?.guest?.corruptions]).toEqual([0, 0]);
    expect(isGood(alloc!)).toBe(true);
  });

  test.each(guests)('of %s is not hinted, and the notes say why', async (_size, ...guest) => {
    const [iterate, oracle, alloc] = await migrated(...guest, false);
    for (const one of [iterate, oracle]) {
      expect(one).toMatchObject({
        hints: { pages: 0 },
        memory: { broken_free_pages: 0 },
        notes: [expect.stringContaining('not used')],
      });
    }
    expect(alloc?.hints?.pages).toBeGreaterThan(10_000);
  });
});

test('discarded hints break such a guest without a migration, and its audit says so', async () => {
  const scenario = await parseScenario(
    'discards.yaml',
    `
machine: { memory: 64MiB, vcpus: 1 }
mm: { init_on_alloc: false, page_poison: true }
strategies: [iterate, alloc]
device: { discard_hints: true }
driver: { hint_trusted_free_pages: true }
steps:
  - boot
  - hint
  - wait: 100ms
`,
  );
  const [iterate, alloc] = await runScenario(scenario, { jobs: 2 });
  expect(iterate?.audit_problems).toEqual([
    expect.stringMatching(/^\d{5} free pages do not hold the poison/),
  ]);
  // It fills again what it gives back.
  expect(alloc?.audit_problems).toEqual([]);
});

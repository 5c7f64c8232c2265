/**
 * Why hints carry a command id (virtio 1.4 §5.5.6.5): a hint that is read after the next dirty sync
 * may describe a page that has been written since and whose dirty bit was already collected.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, expect, test } from 'vitest';
import { launch } from '../../lab/index.ts';
import type { MigrationReport } from '../../protocol/index.ts';
import { MIB, NS_PER_MS } from '../../shared/index.ts';
import { encodeRecording } from '../../shared/recording/index.ts';
import { tinyRecording } from '../support/tiny-recording.ts';

const folder = mkdtempSync(`${tmpdir()}/late-hints-`);
afterAll(() => rmSync(folder, { recursive: true }));

/**
 * Low memory is free when the scan passes it and when it is hinted; then it is allocated and
 * written once. The second round has to send it, and takes longer than the hints' way to the host.
 */
const FREE = { first: 512, count: 7680 };
const recordingPath = `${folder}/late.ballast`;
writeFileSync(
  recordingPath,
  encodeRecording(
    tinyRecording({
      frameCount: 16_384,
      free: [[FREE.first, FREE.count]],
      events: Array.from({ length: 6000 }, (_, i) => ({
        atNs: 200 * NS_PER_MS + i * 100_000,
        kind: 'alloc' as const,
        pfn: FREE.first + 1024 + i,
      })),
    }),
  ),
);

/** The host looks at its queues two seconds after a notification. */
async function migrate(acceptLateHints: boolean): Promise<MigrationReport> {
  await using machine = await launch({
    recording: recordingPath,
    strategy: 'iterate',
    costs: { notifyNs: 2000 * NS_PER_MS },
    acceptLateHints,
  });
  await machine.boot();
  await machine.workload();
  return await machine.migrate({ bandwidthBytesPerS: 20 * MIB, downtimeLimitMs: 50 });
}

test('with the rule late hints are ignored and no page is lost', async () => {
  const { hints, memory, lost, migration } = await migrate(false);
  expect(migration.dirty_sync_count).toBeGreaterThanOrEqual(3);
  expect(hints.late_pages).toBeGreaterThan(1000);
  expect(memory.lost_pages).toBe(0);
  expect(lost).toEqual([]);
});

test('without the rule pages are lost, and each one is reported with its history', async () => {
  const { memory, lost } = await migrate(true);
  expect(memory.lost_pages).toBeGreaterThan(500);
  expect(lost).toHaveLength(Math.min(memory.lost_pages, 1024));
  for (const { pfn, history } of lost) {
    expect(pfn).toBeGreaterThanOrEqual(FREE.first);
    expect(pfn).toBeLessThan(FREE.first + FREE.count);
    expect(history.join('\n')).toMatch(
      /hint consumed at \d+ ns under id 2147483649 .*[\s\S]*skipped to the end[\s\S]*hint recorded at .*[\s\S]*guest at .*: allocated, content tag [0-9a-f]{8}[\s\S]*destination: content tag [0-9a-f]{8}/,
    );
  }
});

import { launch } from 'ballast';
import { expect, test } from 'vitest';

test('the host tells of a migration by the events of QMP, in order', async () => {
  await using machine = await launch({ memoryBytes: 64 * 1024 * 1024, strategy: 'iterate' });
  const seen: string[] = [];
  machine.events.on('MIGRATION', ({ data }) => seen.push(data.status));
  machine.events.on('MIGRATION_PASS', ({ data }) => seen.push(`pass ${data.pass}`));
  machine.events.on('BALLOON_CHANGE', ({ data }) => seen.push(`${data.actual}`));
  machine.events.on('STOP', () => seen.push('stop'));
  machine.events.on('RESUME', () => seen.push('resume'));

  await machine.boot();
  await machine.inflate(1024 * 1024);
  await machine.migrate();

  expect(seen).toEqual([
    `${63 * 1024 * 1024}`,
    'setup',
    'pass 1',
    'active',
    // Everything was sent in the first 100 ms: the last sync is the second one, as in QEMU.
    'stop',
    'device',
    'pass 2',
    'completed',
    'resume',
  ]);
});

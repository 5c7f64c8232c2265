import { launch } from 'ballast';
import { expect, test } from 'vitest';

const MIB = 1024 * 1024;

test('a balloon takes 64 MiB, gives them back, and the guest migrates whole', async () => {
  await using machine = await launch({ memoryBytes: 256 * MIB, strategy: 'alloc' });
  await machine.boot();

  await machine.inflate(64 * MIB);
  expect((await machine.status()).actual_pages).toBe(16_384);

  await machine.deflate(64 * MIB);
  expect((await machine.status()).actual_pages).toBe(0);

  const { migration, memory } = await machine.migrate();
  expect(migration.status).toBe('completed');
  expect(memory.lost_pages).toBe(0);
  expect(await machine.verify()).toEqual([]);
});

/** What `npm run peers` fetched is what it should be, and runs here. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { findPeers } from '../../peers/fetch/index.ts';
import { cacheFolder, PARTS_FILE, type Parts, readLockText } from '../../peers/fetch/lock.ts';

const peers = findPeers();

test('nothing is missing', () => {
  expect(peers.missing).toEqual([]);
});

test('QEMU runs with the libraries and the firmware it came with', () => {
  const { binary, env, dataDir } = peers.qemu!;
  const { status, stdout } = spawnSync(binary, ['-version'], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  expect([status, stdout]).toEqual([0, expect.stringMatching(/^QEMU emulator version \d/)]);
  expect(existsSync(join(dataDir, 'bios-256k.bin'))).toBe(true);
});

test('the kernel is a bzImage with its balloon module, busybox a static i386 program', () => {
  const { kernel, modulesDir, busybox, bios } = peers.linux!;
  expect(readFileSync(kernel).toString('latin1', 0x202, 0x206)).toBe('HdrS');
  expect(existsSync(join(modulesDir, 'kernel/drivers/virtio/virtio_balloon.ko'))).toBe(true);
  const elf = readFileSync(busybox);
  const EM_386 = 3;
  expect([elf.toString('latin1', 1, 4), elf.readUInt16LE(18)]).toEqual(['ELF', EM_386]);
  expect(elf.includes('/lib/ld-linux')).toBe(false);
  expect(readFileSync(bios).length % 65536).toBe(0);
});

test('a second fetch finds everything and takes no time', () => {
  const main = fileURLToPath(new URL('../../peers/fetch/main.ts', import.meta.url));
  const began = performance.now();
  const { status, stdout } = spawnSync(process.execPath, ['--import', 'tsx/esm', main], {
    encoding: 'utf8',
  });
  expect(status).toBe(0);
  expect(stdout.trim()).toBe(`peers: ${cacheFolder(readLockText())}`);
  expect(performance.now() - began).toBeLessThan(2000);
});

test('the cache says which versions it holds', () => {
  const file = join(cacheFolder(readLockText()), PARTS_FILE);
  const { sets } = JSON.parse(readFileSync(file, 'utf8')) as Parts;
  const names = sets.linux.packages.map(({ name }) => name);
  expect(names).toContain(`linux-image-${peers.linux!.release}`);
});

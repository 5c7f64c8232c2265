import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { parseStanzas } from '../../../peers/fetch/apt.ts';
import { findPeers } from '../../../peers/fetch/index.ts';
import {
  cacheFolder,
  type LockedSet,
  PARTS_FILE,
  readLockText,
} from '../../../peers/fetch/lock.ts';
import { differenceOf } from '../../../peers/fetch/sets.ts';

const SUM = 'a'.repeat(64);
const SET: LockedSet = {
  architecture: 'i386',
  packages: [
    { name: 'one', version: '1:2.3-4', architecture: 'i386', sha256: SUM },
    { name: 'two', version: '5', architecture: 'all', sha256: SUM },
  ],
};
const [ONE, TWO] = SET.packages as [LockedSet['packages'][0], LockedSet['packages'][0]];

test('stanzas of apt become packages; those without a sum (installed ones) do not', () => {
  const text = `Package: one
Version: 1:2.3-4
Architecture: i386
Description: a thing
 Version: of no account
SHA256: ${SUM}

Package: one
Status: install ok installed
Version: 1:2.3-3
Architecture: i386
`;
  expect(parseStanzas(text)).toEqual([ONE]);
});

describe('the archive beside the lock', () => {
  test.each([
    { id: 'the same', shown: [ONE, TWO], line: null },
    { id: 'newer as well', shown: [{ ...ONE, version: '9' }, ONE, TWO], line: null },
    { id: 'one gone', shown: [ONE], line: 'the archive no longer has two 5' },
    { id: 'all gone', shown: [], line: 'the archive no longer has one 1:2.3-4 and 1 more' },
  ])('$id', ({ shown, line }) => {
    expect(differenceOf(SET, shown)).toBe(line);
  });

  test('another sum under the locked version is refused', () => {
    const forged = { ...TWO, sha256: 'b'.repeat(64) };
    expect(() => differenceOf(SET, [ONE, forged])).toThrow(/two 5: .* not the locked one/);
  });
});

describe('peers', () => {
  let home: string;

  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), 'ballast-peers-'));
    vi.stubEnv('XDG_CACHE_HOME', home);
    vi.stubEnv('PATH', home);
    vi.stubEnv('BALLAST_QEMU', '');
  });

  afterEach(() => {
    vi.unstubAllEnvs();
    rmSync(home, { recursive: true, force: true });
  });

  const place = (...names: string[]): void => {
    for (const name of names) {
      const path = join(cacheFolder(readLockText()), name);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, '');
    }
  };
  const LINUX = ['linux/boot/vmlinuz-6.1-x', 'linux/lib/modules/6.1-x/m', 'linux/bin/busybox'];
  const QEMU = ['qemu/usr/bin/qemu-system-x86_64', 'qemu/usr/share/seabios/bios.bin'];

  test('that are not there are named, one line each', () => {
    const { qemu, linux, missing } = findPeers();
    expect([qemu, linux]).toEqual([null, null]);
    expect(missing).toHaveLength(2);
    expect(missing.every((line) => line.includes('npm run peers'))).toBe(true);
  });

  test('come from the cache when it is whole, and only then', () => {
    place(...LINUX, ...QEMU, 'qemu/usr/lib/x86_64-linux-gnu/libx.so');
    expect(findPeers().missing).toHaveLength(2);
    place(PARTS_FILE);
    const { qemu, linux, missing } = findPeers();
    expect(missing).toEqual([]);
    expect(qemu!.env['LD_LIBRARY_PATH']).toContain('qemu/usr/lib/x86_64-linux-gnu');
    expect(linux!.release).toBe('6.1-x');
  });

  test('of the system stand in for QEMU', () => {
    writeFileSync(join(home, 'qemu-system-x86_64'), '');
    expect(findPeers().qemu!.binary).toBe(join(home, 'qemu-system-x86_64'));
  });

  test('without apt cannot be fetched: one line, exit status 2, and nothing is left', () => {
    const main = fileURLToPath(new URL('../../../peers/fetch/main.ts', import.meta.url));
    const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx/esm', main], {
      encoding: 'utf8',
    });
    expect(stderr).toMatch(/^peers: apt-get, .* missing: .*\n$/);
    expect(status).toBe(2);
    expect(readdirSync(home)).toEqual([]);
  });
});

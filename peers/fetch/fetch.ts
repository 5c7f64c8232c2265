/** Download, verify and unpack: one folder of the cache, whole or not there. */

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Apt, FetchError, run } from './apt.ts';
import {
  cacheFolder,
  cacheRoot,
  type Lock,
  type LockedPackage,
  type LockedSet,
  PARTS_FILE,
  type Parts,
  type SetName,
} from './lock.ts';
import { architectureOf, differenceOf, exclusionsOf, resolveNewest } from './sets.ts';

export type Say = (line: string) => void;

/** Fetch what the lock names, or the newest where that is gone. Returns the folder. */
export async function fetchPeers(lockText: string, say: Say): Promise<string> {
  const target = cacheFolder(lockText);
  if (existsSync(join(target, PARTS_FILE))) return target;
  const lock = JSON.parse(lockText) as Lock;
  const work = workFolder();
  try {
    const [qemu, linux] = await both(
      fetchSet('qemu', lock.qemu, work, say),
      fetchSet('linux', lock.linux, work, say),
    );
    linkFirmware(join(work, 'qemu'));
    const parts: Parts = {
      locked: qemu.locked && linux.locked,
      sets: { qemu: qemu.set, linux: linux.set },
    };
    rmSync(join(work, 'apt'), { recursive: true, force: true });
    writeFileSync(join(work, PARTS_FILE), `${JSON.stringify(parts, null, 1)}\n`);
    publish(work, target);
    return target;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** As `Promise.all`, but a failure waits for the other: it still writes into the same folder. */
async function both<T>(first: Promise<T>, second: Promise<T>): Promise<[T, T]> {
  await Promise.allSettled([first, second]);
  return [await first, await second];
}

/** The lock as it would be today. */
export async function newestLock(say: Say): Promise<Lock> {
  const work = workFolder();
  try {
    const newest = async (set: SetName) => {
      const apt = await openApt(set, work, say);
      return resolveNewest(set, apt);
    };
    const [qemu, linux] = await both(newest('qemu'), newest('linux'));
    return { qemu, linux };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

const WORK_PREFIX = '.fetch-';
const ABANDONED_AFTER_MS = 3_600_000;

/** In the cache, so that a rename publishes it. What a killed process left there goes. */
function workFolder(): string {
  const root = cacheRoot();
  mkdirSync(root, { recursive: true });
  for (const name of readdirSync(root)) {
    const path = join(root, name);
    if (!name.startsWith(WORK_PREFIX)) continue;
    const ageMs = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
    if (ageMs > ABANDONED_AFTER_MS) rmSync(path, { recursive: true, force: true });
  }
  return mkdtempSync(join(root, WORK_PREFIX));
}

async function openApt(set: SetName, work: string, say: Say): Promise<Apt> {
  const apt = await Apt.create(join(work, 'apt', set), architectureOf(set));
  const trouble = await apt.update();
  if (trouble) say(`lists of ${architectureOf(set)}: ${trouble}`);
  return apt;
}

async function fetchSet(
  set: SetName,
  locked: LockedSet,
  work: string,
  say: Say,
): Promise<{ set: LockedSet; locked: boolean }> {
  const apt = await openApt(set, work, say);
  const shown = await apt.show(locked.packages.map(({ name }) => name));
  if (shown.length === 0) {
    throw new FetchError(
      `apt knows none of the packages for ${set} (${architectureOf(set)}): ` +
        'is the archive reachable, and in the sources of the system?',
    );
  }
  const difference =
    locked.architecture === architectureOf(set)
      ? differenceOf(locked, shown)
      : `the lock is for ${locked.architecture}`;
  if (difference) say(`${set}: ${difference}; taking the newest, verified by the archive alone`);
  const wanted = difference ? await resolveNewest(set, apt) : locked;
  const folder = await apt.download(wanted.packages);
  const target = join(work, set);
  mkdirSync(target);
  await unpackAll(wanted.packages, folder, target);
  return { set: wanted, locked: difference === null };
}

/** Two at a time: decompression is what takes long. */
async function unpackAll(packages: readonly LockedPackage[], folder: string, target: string) {
  const archives = readdirSync(folder).filter((name) => name.endsWith('.deb'));
  const left = [...packages];
  const worker = async () => {
    for (let next = left.pop(); next; next = left.pop()) {
      const { name, sha256 } = next;
      const file = archives.find((archive) => archive.startsWith(`${name}_`));
      if (!file) throw new FetchError(`${name} was not downloaded`);
      const path = join(folder, file);
      const sum = createHash('sha256').update(readFileSync(path)).digest('hex');
      if (sum !== sha256) throw new FetchError(`${file}: SHA-256 ${sum}, expected ${sha256}`);
      await unpack(path, target, exclusionsOf(name));
    }
  };
  await Promise.all([worker(), worker()]);
}

function unpack(archive: string, target: string, exclusions: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const options = exclusions.map((pattern) => `--exclude=${pattern}`);
    const members = spawn('dpkg-deb', ['--fsys-tarfile', archive], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const tar = spawn('tar', ['-x', '--no-same-owner', '-C', target, ...options], {
      stdio: [members.stdout, 'ignore', 'ignore'],
    });
    const failed = () => reject(new FetchError(`cannot unpack ${archive}`));
    let open = 2;
    const ended = (status: number | null) => {
      if (status !== 0) failed();
      else if (--open === 0) resolve();
    };
    for (const process of [members, tar]) process.on('error', failed).on('exit', ended);
  });
}

/** QEMU is told one folder for its firmware; Debian has it in two. */
function linkFirmware(qemu: string): void {
  const firmware = join(qemu, 'firmware');
  mkdirSync(firmware);
  for (const from of ['usr/share/seabios', 'usr/share/qemu']) {
    const folder = join(qemu, from);
    if (!existsSync(folder)) continue;
    for (const name of readdirSync(folder)) {
      rmSync(join(firmware, name), { force: true });
      symlinkSync(join('..', from, name), join(firmware, name));
    }
  }
}

/** Another process may have been faster; both folders hold the same. */
function publish(work: string, target: string): void {
  try {
    renameSync(work, target);
  } catch (error) {
    if (!existsSync(join(target, PARTS_FILE))) throw error;
  }
}

/** The programs without which nothing can be fetched. */
export async function missingPrograms(): Promise<string[]> {
  const needed = ['apt-get', 'apt-cache', 'apt-config', 'dpkg-deb', 'tar'];
  const missing = await Promise.all(
    needed.map((program) =>
      run(program, ['--version']).then(
        () => '',
        () => program,
      ),
    ),
  );
  return missing.filter((program) => program !== '');
}

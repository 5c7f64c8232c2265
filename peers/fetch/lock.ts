/**
 * The packages that real peers are made of: `lock.json` names each with version, architecture and
 * SHA-256. Its digest names the folder of the cache that holds them unpacked.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

export interface LockedPackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly sha256: string;
}

/** Packages of one architecture that are unpacked into one folder. */
export interface LockedSet {
  readonly architecture: string;
  readonly packages: readonly LockedPackage[];
}

export type SetName = 'qemu' | 'linux';
export type Lock = Readonly<Record<SetName, LockedSet>>;

const BESIDE = new URL('./lock.json', import.meta.url);
/** Compiled code lies in dist/, the lock beside its source. */
export const LOCK_URL = existsSync(BESIDE)
  ? BESIDE
  : new URL('../../../peers/fetch/lock.json', import.meta.url);

export function readLockText(): string {
  return readFileSync(LOCK_URL, 'utf8');
}

/** Written last: its presence means that the folder beside it is whole. */
export interface Parts {
  /** False: the archive had other versions than the lock. */
  readonly locked: boolean;
  readonly sets: Lock;
}

export const PARTS_FILE = 'parts.json';

export function cacheRoot(): string {
  return join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'ballast', 'peers');
}

/** Where the parts of this lock lie, or will. */
export function cacheFolder(lockText: string): string {
  // Of the content, not of how it is laid out.
  const content = JSON.stringify(JSON.parse(lockText));
  const digest = createHash('sha256').update(content).update(process.arch).digest('hex');
  return join(cacheRoot(), digest.slice(0, 16));
}

/** A small recording folder: 4 MiB, frames 0–15 reserved, 512–1023 free at the start. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

export const FRAMES = 1024;
const BUDDY = 1n << 10n;
const ANON = 1n << 12n;
const RESERVED = 1n << 32n;

export function pageFlags(frames: number, flagsOf: (pfn: number) => bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.from({ length: frames }, (_, pfn) => flagsOf(pfn)).buffer);
}

const line = (at: string, event: string) => `  wl-1 [000] ..... ${at}: ${event}\n`;
const alloc = (pfn: number, order = 0, gfp = 'GFP_HIGHUSER_MOVABLE') =>
  `mm_page_alloc: page=(____ptrval____) pfn=0x${pfn.toString(16)} order=${order} migratetype=1 gfp_flags=${gfp}`;
const free = (pfn: number, order = 0) =>
  `mm_page_free: page=(____ptrval____) pfn=0x${pfn.toString(16)} order=${order}`;

/** Frame 100 is on a per-CPU list: not BUDDY, first allocated. */
export const TRACE = [
  line('10.000000', alloc(100)),
  line('10.000010', alloc(512, 3)),
  line('10.000020', free(50)),
  line('10.000030', 'tracing_mark_write: mark migrate'),
  line('10.000040', alloc(600, 0, 'GFP_KERNEL')),
  line('10.000050', free(512, 3)),
  line('10.000060', 'tracing_mark_write: mark migrated'),
].join('');

export const MANIFEST = {
  name: 'tiny',
  mem_MiB: 4,
  page_size: 4096,
  vcpus: 1,
  kernel: 'Linux',
  kernel_parameters: 'quiet ',
  init_on_alloc: false,
  fresh_boot: true,
  workload: 'none',
  hypervisor: 'none',
  recorded_with_free_page_hint: false,
  bandwidth_bytes_per_s: 1e8,
  downtime_limit_ms: 300,
  migrate_at_s: 10.00003,
  migrated_at_s: 10.00006,
  in_place_dirty: null,
  measured: [],
};

const flagsAtStart = (pfn: number) => (pfn < 16 ? RESERVED : pfn < 512 ? ANON : BUDDY);
const zeroPages = new Uint8Array(FRAMES / 8).fill(255, 60);

/** By name; a test replaces or deletes what it is about. */
export function syntheticFiles(): Record<string, Uint8Array | string> {
  const endFree = (pfn: number) => (pfn >= 512 && pfn !== 600) || pfn === 50;
  return {
    'recording.json': JSON.stringify(MANIFEST),
    'kpageflags.start.gz': gzipSync(pageFlags(FRAMES, flagsAtStart)),
    'kpageflags.end.gz': gzipSync(pageFlags(FRAMES, (pfn) => (endFree(pfn) ? BUDDY : ANON))),
    'trace.txt.gz': gzipSync(TRACE),
    'zero-pages.bitmap.gz': gzipSync(zeroPages),
  };
}

/** Writes the files to a new folder, and removes it afterwards. */
export async function inFolder<T>(
  files: Readonly<Record<string, Uint8Array | string>>,
  use: (folder: string) => Promise<T> | T,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'ballast-test-'));
  try {
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { importRecording, writeRecording } from '../../../../lab/recording/import.ts';
import type { Bitmap } from '../../../../shared/index.ts';
import { readRecording } from '../../../../shared/recording/index.ts';
import { FRAMES, inFolder, MANIFEST, pageFlags, syntheticFiles, TRACE } from './synthetic.ts';

type Files = Record<string, Uint8Array | string>;

function setBits(bitmap: Bitmap): number[] {
  const bits: number[] = [];
  for (let i = bitmap.nextSet(0); i >= 0; i = bitmap.nextSet(i + 1)) bits.push(i);
  return bits;
}

function imported(change: (files: Files) => void = () => {}, options = {}) {
  const files: Files = syntheticFiles();
  change(files);
  return inFolder(files, (folder) => importRecording(folder, options));
}

async function refusal(change: (files: Files) => void) {
  return imported(change).then(
    () => ({ code: 'accepted', message: '' }),
    (error: { code: string; message: string }) => error,
  );
}

const withManifest = (change: object) => (files: Files) => {
  files['recording.json'] = JSON.stringify({ ...MANIFEST, ...change });
};
const withTrace = (text: string) => (files: Files) => {
  files['trace.txt.gz'] = gzipSync(text);
};

describe('a page', () => {
  test('that is allocated first and was not BUDDY was on a per-CPU list', async () => {
    const { start, header } = await imported();
    expect(setBits(start.onPcp)).toEqual([100]);
    expect(start.free.count()).toBe(512);
    expect(start.reserved.count()).toBe(16);
    expect(header.consistency).toMatchObject({
      allocs: 3,
      frees: 2,
      onPcpPages: 1,
      doubleAllocPages: 0,
      doubleFreePages: 0,
      endMismatchPages: 0,
    });
  });

  test('untouched before the dump keeps what the dump says; a touched free one was zero', async () => {
    const { start, zeroAtMigrate } = await imported();
    // The dump calls 480 … 1023 zero; 512 … 519 were allocated before it.
    expect(zeroAtMigrate.count()).toBe(544);
    expect(setBits(start.zero)).toEqual(Array.from({ length: 544 }, (_, i) => 480 + i));
    expect(start.neverTouched.count()).toBe(512 - 8);
    expect(start.neverTouched.get(600), 'touched only after the dump').toBe(true);
    expect(start.neverTouched.get(512)).toBe(false);
  });

  test('of a guest that ran for long is backed by the host already', async () => {
    const { start } = await imported(withManifest({ fresh_boot: false }));
    expect(start.neverTouched.count()).toBe(0);
    expect(start.zero.get(512), 'touched, so nobody knows').toBe(false);
  });
});

test('times count from the first event', async () => {
  const { header, events } = await imported();
  expect([...events.atNs]).toEqual([0, 10_000, 20_000, 40_000, 50_000]);
  expect(header).toMatchObject({
    traceStartNs: 10_000_000_000,
    traceEndNs: 50_000,
    migrateAtNs: 30_000,
    migratedAtNs: 60_000,
    kernelParameters: 'quiet',
  });
});

test('plain files do as well as gzipped ones, and the written file reads the same', async () => {
  const packed = await imported();
  const files = Object.entries(syntheticFiles()).map(([name, content]) =>
    name.endsWith('.gz')
      ? ([name.slice(0, -3), gunzipSync(content as Uint8Array)] as const)
      : ([name, content] as const),
  );
  await inFolder(Object.fromEntries(files), async (folder) => {
    const plain = await importRecording(folder);
    expect(plain).toEqual(packed);
    const path = join(folder, 'tiny.ballast');
    const { sizeBytes } = writeRecording(plain, path);
    expect(readFileSync(path).length).toBe(sizeBytes);
    expect(readRecording(path)).toEqual(plain);
  });
});

test('an unknown key and measurements without a series are accepted', async () => {
  const run = {
    free_page_hint: true,
    status: 'completed',
    total_ms: 5,
    downtime_ms: 1,
    transferred_bytes: 9,
    normal_pages: 2,
    duplicate_pages: 3,
    dirty_sync_count: 3,
  };
  const { header } = await imported(withManifest({ colour: 'red', measured: [run] }));
  expect(header.measured).toEqual([{ ...run, setup_ms: null, ram_total_bytes: null, series: [] }]);
});

test('a guest with a hole below 4 GiB has more frames than memory', async () => {
  const { header, start, zeroAtMigrate } = await imported((files) => {
    const hole = (pfn: number) => (pfn >= FRAMES ? 1n << 20n : pfn < 512 ? 0n : 1n << 10n);
    files['kpageflags.start.gz'] = gzipSync(pageFlags(2 * FRAMES, hole));
    files['kpageflags.end.gz'] = gzipSync(pageFlags(2 * FRAMES, hole));
  });
  expect(header).toMatchObject({ memMiB: 4, frameCount: 2 * FRAMES });
  expect(start.noPage.count()).toBe(FRAMES);
  expect(zeroAtMigrate.count()).toBe(544);
});

describe('a recording is refused in one line', () => {
  test.each(Object.keys(syntheticFiles()))('without %s', async (name) => {
    const { code, message } = await refusal((files) => delete files[name]);
    expect(code).toBe('FILE_MISSING');
    expect(message).toMatch(/: expected this file, found none$/);
    expect(message).toContain(name);
  });

  test.each([
    ['memory as text', { mem_MiB: '4' }, 'recording.json: mem_MiB: expected number, found "4"'],
    ['no name', { name: undefined }, 'recording.json: name: expected string, found nothing'],
    ['another page size', { page_size: 16384 }, 'recording.json: page_size:'],
    ['half of a set', { in_place_dirty: { set_pages: 1 } }, 'in_place_dirty.pages_per_second'],
    ['an end before its start', { migrated_at_s: 1 }, 'recording.json: migrated_at_s:'],
    [
      'a time that the mark denies',
      { migrate_at_s: 9 },
      'the mark "mark migrate" in trace.txt.gz:4',
    ],
    ['more memory than frames', { mem_MiB: 8 }, 'kpageflags.start.gz: expected 16384 bytes'],
  ])('with %s', async (_, change, expected) => {
    const { code, message } = await refusal(withManifest(change));
    expect(code).toBe('RECORDING_MALFORMED');
    expect(message).toContain(expected);
    expect(message).not.toContain('\n');
  });

  const CASES: [string, (files: Files) => void, string, RegExp][] = [
    [
      'whose JSON is none',
      (files) => {
        files['recording.json'] = '{"name": ';
      },
      'RECORDING_MALFORMED',
      /^recording\.json: expected JSON/,
    ],
    [
      'whose trace was cut off',
      (files) => {
        files['trace.txt.gz'] = files['trace.txt.gz']!.slice(0, -20);
      },
      'RECORDING_MALFORMED',
      /^trace\.txt\.gz: expected a complete gzip file, found one that was cut off$/,
    ],
    [
      'whose trace is damaged',
      (files) => {
        (files['trace.txt.gz'] as Uint8Array).fill(0xff, 12, 40);
      },
      'RECORDING_MALFORMED',
      /^trace\.txt\.gz: expected a gzip file, found damaged data/,
    ],
    ['whose trace is empty', withTrace(''), 'RECORDING_MALFORMED', /found none of them$/],
    [
      'of more CPUs than it has',
      withTrace(TRACE.replace('[000]', '[002]')),
      'RECORDING_MALFORMED',
      /^trace\.txt\.gz:1: expected a CPU below 1 .*, found CPU 2$/,
    ],
    [
      'that lost events',
      withTrace(`${TRACE}CPU:0 [LOST 5 EVENTS]\n`),
      'RECORDING_LOST_EVENTS',
      /^trace\.txt\.gz:8: .*5 lost/,
    ],
    [
      'whose flags are no u64s',
      (files) => {
        files['kpageflags.end.gz'] = gzipSync(Buffer.alloc(8 * FRAMES + 3));
      },
      'RECORDING_MALFORMED',
      /^kpageflags\.end\.gz: expected a multiple of 8 bytes/,
    ],
    [
      'that has more frames than memory and no hole',
      (files) => {
        files['kpageflags.start.gz'] = gzipSync(pageFlags(FRAMES + 8, () => 1n << 10n));
      },
      'RECORDING_MALFORMED',
      /^kpageflags\.start\.gz: expected 8192 bytes \(mem_MiB 4\), found 8256/,
    ],
    [
      'whose zero bitmap has another size',
      (files) => {
        files['zero-pages.bitmap.gz'] = gzipSync(Buffer.alloc(5));
      },
      'RECORDING_MALFORMED',
      /^zero-pages\.bitmap\.gz: expected 128 bytes .*, found 5$/,
    ],
  ];
  test.each(CASES)('%s', async (_, change, code, message) => {
    const error = await refusal(change);
    expect(error.message).toMatch(message);
    expect(error.code).toBe(code);
    expect(error.message).not.toContain('\n');
  });

  test('that is no folder', async () => {
    await expect(importRecording('/nonexistent-folder')).rejects.toMatchObject({
      code: 'FILE_MISSING',
    });
  });
});

test('lost events and malformed lines are imported when asked for, and counted', async () => {
  const trace = `${TRACE}CPU:0 [LOST 5 EVENTS]\nnonsense\n`;
  const options = { allowLostEvents: true, tolerateMalformed: true };
  const { header } = await imported(withTrace(trace), options);
  expect(header.consistency).toMatchObject({ lostEvents: 5, malformedLines: 1, allocs: 3 });
});

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, describe, expect, test } from 'vitest';
import {
  encodeRecording,
  type Recording,
  readRecording,
} from '../../../../shared/recording/index.ts';
import { tinyRecording } from '../../../support/tiny-recording.ts';

const folder = mkdtempSync(`${tmpdir()}/reader-test-`);
afterAll(() => rmSync(folder, { recursive: true }));
const path = `${folder}/x.ballast`;

/** Frames 64 to 127 are free, 10 is reserved, 11 a hole, 12 on a per-CPU list. */
function written(change: (start: Recording['start']) => void): string {
  const recording = tinyRecording({ frameCount: 512, free: [[64, 64]], events: [] });
  const { reserved, noPage, onPcp } = recording.start;
  for (const pfn of [10, 11]) reserved.set(pfn);
  noPage.set(11);
  onPcp.set(12);
  change(recording.start);
  writeFileSync(path, encodeRecording(recording));
  return path;
}

describe('a recording file', () => {
  test('with one state for each frame is read', () => {
    expect(readRecording(written(() => {})).start.reserved.count()).toBe(2);
  });

  test.each<[string, (start: Recording['start']) => void]>([
    ['free and on a per-CPU list', ({ onPcp }) => onPcp.set(64)],
    ['free and reserved', ({ reserved }) => reserved.set(127)],
    ['reserved and on a per-CPU list', ({ onPcp }) => onPcp.set(10)],
    ['no page and not reserved', ({ noPage }) => noPage.set(200)],
  ])('with a frame that is %s is refused in one line', (_what, change) => {
    expect(() => readRecording(written(change))).toThrow(
      expect.objectContaining({
        code: 'RECORDING_MALFORMED',
        message: expect.stringMatching(/^[^\n]*x\.ballast: expected each frame free, [^\n]*$/),
      }),
    );
  });
});

import { expect, test } from 'vitest';
import { Batch } from '../../../../guest/page-migration/batch.ts';

test.each([
  ['512 pages', 1, 512],
  ['one huge page', 512, 1],
  ['blocks of which the last is larger than what was left', 96, 6],
])('a batch is full with %s', (_what, nrPages, blocks) => {
  const batch = new Batch();
  for (let i = 0; i < blocks; i++) {
    expect(batch.isFull).toBe(false);
    batch.add(i * nrPages, nrPages);
  }
  expect(batch.isFull).toBe(true);
  batch.clear();
  expect([batch.isFull, batch.count]).toEqual([false, 0]);
});

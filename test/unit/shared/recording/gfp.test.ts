import { expect, test } from 'vitest';
import { Migratetype, parseGfp } from '../../../../shared/recording/index.ts';

const { UNMOVABLE, MOVABLE, RECLAIMABLE } = Migratetype;

test.each([
  ['GFP_KERNEL', UNMOVABLE, false, false],
  ['GFP_KERNEL_ACCOUNT|__GFP_ZERO', UNMOVABLE, true, false],
  ['GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO', MOVABLE, true, false],
  ['GFP_USER|__GFP_MOVABLE', MOVABLE, false, false],
  ['GFP_KERNEL|__GFP_NOWARN|__GFP_RECLAIMABLE', RECLAIMABLE, false, false],
  ['__GFP_NOWARN|__GFP_NORETRY|__GFP_NOMEMALLOC', UNMOVABLE, false, true],
  ['__GFP_NORETRY|__GFP_NOMEMALLOC|__GFP_NOWARN', UNMOVABLE, false, true],
  ['GFP_KERNEL|__GFP_NOWARN|__GFP_NORETRY|__GFP_NOMEMALLOC', UNMOVABLE, false, false],
  ['__GFP_IO|__GFP_FS|__GFP_NOWARN|__GFP_NORETRY|__GFP_NOMEMALLOC', UNMOVABLE, false, false],
  ['none', UNMOVABLE, false, false],
])('reads %s', (text, migratetype, zero, hintDriver) => {
  expect(parseGfp(text)).toMatchObject({ text, migratetype, zero, hintDriver });
});

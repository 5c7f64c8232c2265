import { expect, test } from 'vitest';
import { ContentChecks } from '../../../../guest/machine/content-checks.ts';

test('a page that is found broken counts once, until it is broken in another way', () => {
  const ram = { tags: Uint32Array.of(7, 7, 0, 7) };
  const checks = new ContentChecks(ram);
  checks.trusted(0, 4, 7);
  checks.read(2, 7);
  expect(checks.corruptions).toBe(1);
  ram.tags[2] = 5;
  checks.read(2, 7);
  checks.trusted(0, 3, 7);
  expect(checks.corruptions).toBe(2);
});

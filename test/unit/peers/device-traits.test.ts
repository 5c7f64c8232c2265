/** The list of differences between devices: each row is one, and says why. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { TESTED_DEVICES, TRAITS, traitsMarkdown } from '../../../peers/device-traits.ts';

describe.each(Object.entries(TRAITS))('%s', (_name, { about, values, reason, source }) => {
  test('differs between two devices, with a reason and a source', () => {
    expect(Object.keys(values)).toEqual([...TESTED_DEVICES]);
    expect(new Set(Object.values(values)).size).toBeGreaterThan(1);
    for (const text of [about, reason, source]) expect(text).not.toBe('');
  });
});

test('docs/peers.md holds the list', () => {
  const page = readFileSync(new URL('../../../docs/peers.md', import.meta.url), 'utf8');
  expect(page).toContain(traitsMarkdown());
});

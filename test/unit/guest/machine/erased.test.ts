/** What a discard takes from a page in use is remembered until somebody writes the page. */
import { expect, test } from 'vitest';
import { Ram, ZERO_TAG } from '../../../../guest/machine/ram.ts';

/** Pages 0 … 3 have content, pages 2 and 3 are free; then the host discards 1 … 3. */
function discarded(): Ram {
  const ram = new Ram(8);
  ram.isInUse = (pfn) => pfn < 2;
  for (let pfn = 0; pfn < 4; pfn++) ram.write(pfn);
  ram.discard(1, 3);
  return ram;
}

test('only content of pages in use is erased, under the tag that it had', () => {
  expect([...discarded().erased]).toEqual([[1, 2]]);
});

test('a page that is zero already loses nothing, and neither does one that nobody asks about', () => {
  const ram = discarded();
  ram.erased.clear();
  ram.discard(1, 1);
  ram.isInUse = null;
  ram.discard(0, 1);
  expect(ram.erased.size).toBe(0);
});

test.each<[string, (ram: Ram) => void, number[]]>([
  ['another page is written', (ram) => ram.write(0), [1]],
  ['it is written', (ram) => ram.write(1), []],
  ['it is zeroed', (ram) => ram.fill(1, 1, ZERO_TAG), []],
  ['it is zeroed with others', (ram) => ram.fill(0, 4, ZERO_TAG), []],
  ['a device writes it', (ram) => ram.setRecord(1, 7), []],
  ['another page is copied to it', (ram) => ram.copy(0, 1), []],
  ['it is copied to another page', (ram) => ram.copy(1, 5), [1, 5]],
])('when %s, what is erased is right', (_what, act, left) => {
  const ram = discarded();
  act(ram);
  expect([...ram.erased.keys()]).toEqual(left);
});

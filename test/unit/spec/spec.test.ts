import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { readClauses } from '../../../spec/clauses.ts';
import { findMistakes, renderReport } from '../../../spec/report.ts';
import { findTags } from '../../../spec/tags.ts';

const HEAD = `specification: a text
revisions: {a.tex: ${'a'.repeat(40)}}
sections:
  - section: 1.1
    title: Doors
    party: device
    clauses:
`;
const clauses = (...lines: string[]) => `${HEAD}${lines.map((l) => `      - {${l}}\n`).join('')}`;
const must = 'id: 1.1-device-1, level: MUST, text: Open.';
const should = 'id: 1.1-device-2, level: SHOULD, text: Creak.';
const FILE = clauses(must, should).replace('section: 1.1', "section: '1.1'");

const tagged = (ids: string, call: string, file = 'test/unit/door.test.ts') =>
  findTags(file, `const a = 1;\n// spec: ${ids}\n${call}\n`);

describe('a tag', () => {
  test.each([
    { call: "test('opens', () => {});", title: 'opens' },
    { call: "  it('it\\'s open', () => {});", title: "it's open" },
    { call: 'test(`opens`, () => {});', title: 'opens' },
    { call: "// why\n\n/* so */ test('opens', () => {});", title: 'opens' },
    { call: "// spec: 1.1-device-2\ntest('opens', () => {});", title: 'opens' },
    { call: "test.each([1, ')', { a: '(' }])('opens %s', () => {});", title: 'opens %s' },
    { call: "test.each(cases)(\n  'opens',\n  () => {});", title: 'opens' },
    { call: 'test.each`a | b\n1 | 2`("opens", () => {});', title: 'opens' },
    { call: "test.skipIf(!qemu).each([1])('opens', () => {});", title: 'opens' },
    { call: "test.skip('opens', () => {});", title: null },
    { call: "test.todo('opens');", title: null },
    { call: "describe('doors', () => {});", title: null },
    { call: "const b = 2;\ntest('opens', () => {});", title: null },
    { call: "testament('opens', () => {});", title: null },
  ])('above $call is for $title', ({ call, title }) => {
    const found = tagged('1.1-device-1, 1.1-device-2', call);
    expect(found[0]).toMatchObject({ ids: ['1.1-device-1', '1.1-device-2'], line: 2, title });
  });
});

describe('mistakes', () => {
  const file = readClauses(FILE);

  test('none when each MUST has a test; a SHOULD may be open', () => {
    expect(findMistakes(file, tagged('1.1-device-1', "test('opens', f);"))).toEqual([]);
  });

  test.each([
    { id: 'no tag', tags: [], line: '1.1-device-1: no test: MUST Open.' },
    {
      id: 'a tag in code',
      tags: tagged('1.1-device-1', "test('opens', f);", 'host/door.ts'),
      line: '1.1-device-1: no test: MUST Open.',
    },
    {
      id: 'a tag above no test',
      tags: tagged('1.1-device-1', 'open();'),
      line: 'test/unit/door.test.ts:2: a tag above no test that runs',
    },
    {
      id: 'a tag of no clause',
      tags: tagged('1.1-device-3', "test('opens', f);"),
      line: 'test/unit/door.test.ts:2: no clause 1.1-device-3',
    },
    {
      id: 'an empty tag',
      tags: tagged('', "test('opens', f);"),
      line: 'test/unit/door.test.ts:2: a tag without a clause',
    },
  ])('$id', ({ tags, line }) => {
    expect(findMistakes(file, tags)).toContain(line);
  });

  test('a clause that is not applicable needs no test, and takes none', () => {
    const out = readClauses(FILE.replace('text: Open.', 'text: Open., not_applicable: No door.'));
    expect(findMistakes(out, [])).toEqual([]);
    expect(findMistakes(out, tagged('1.1-device-1', "test('opens', f);"))).toEqual([
      'test/unit/door.test.ts:2: 1.1-device-1 is not applicable',
    ]);
  });
});

describe('the file of clauses', () => {
  test.each([
    { id: 'the same id twice', lines: [must, must], message: /1\.1-device-1 occurs twice/ },
    { id: 'an unknown level', lines: [must.replace('MUST', 'SHALL')], message: /level/ },
    { id: 'an unknown key', lines: [`${must}, note: x`], message: /note/ },
    { id: 'a MUST with an excuse', lines: [`${must}, reason: x`], message: /only a SHOULD/ },
  ])('with $id is refused', ({ lines, message }) => {
    const text = clauses(...lines).replace('section: 1.1', "section: '1.1'");
    expect(() => readClauses(text)).toThrow(message);
  });

  test('that is shipped is read, and no id is outside of its section', () => {
    const url = new URL('../../../spec/clauses.yaml', import.meta.url);
    const file = readClauses(readFileSync(url, 'utf8'));
    expect(file.sections.length).toBeGreaterThan(40);
    const strays = file.sections.flatMap(({ section, party, clauses: own }) =>
      own.filter(({ id }) => !id.includes('legacy') && !id.startsWith(`${section}-${party}-`)),
    );
    expect(strays).toEqual([]);
  });
});

test('the page has a row for each clause, with its tests or that it is open', () => {
  const tags = tagged('1.1-device-1', "test('a | b', f);");
  const page = renderReport(readClauses(FILE), tags);
  const row = '[door.test.ts](../test/unit/door.test.ts): a \\| b |';
  expect(page).toContain(`| 1.1-device-1 | MUST | Open. | ${row}`);
  expect(page).toContain('| 1.1-device-2 | SHOULD | Creak. | **open** |');
  expect(page).toContain('| MUST, MUST NOT | 1 | 1 |');
  expect(page).toContain('| SHOULD, SHOULD NOT | 0 | 1 |');
});

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import type { Pages } from '../../../../guest/mm/index.ts';
import { MigrateMode } from '../../../../guest/page-migration/index.ts';
import { GENERATIONS, type GenerationName, MigrationMachine } from './machine.ts';
import { ScriptedDriver } from './scripted-driver.ts';

const DOC = fileURLToPath(new URL('../../../../docs/movable-pages.md', import.meta.url));
const MIGRATIONS = 16;

/** Of one migrated page, from isolation to the end; what the page allocator does is not counted. */
interface Operations {
  /** Of the page lock's bit. */
  lock: number;
  /** Of the other flags. */
  flags: number;
  references: number;
  /** Insertions into lists through page->lru, and removals. */
  links: number;
}

const PRIMITIVES: Partial<Record<keyof Pages, keyof Operations>> = {
  setFlag: 'flags',
  clearFlag: 'flags',
  testAndSet: 'flags',
  testAndClear: 'flags',
  tryGet: 'references',
  putTestZero: 'references',
  freeze: 'references',
  unfreeze: 'references',
  link: 'links',
  unlink: 'links',
};

function countOperations(name: GenerationName): Operations {
  const machine = new MigrationMachine(name);
  const driver = new ScriptedDriver(machine);
  const pfns = Array.from({ length: MIGRATIONS }, () => machine.allocate());
  for (const pfn of pfns) driver.add(pfn);
  const counts: Operations = { lock: 0, flags: 0, references: 0, links: 0 };
  const { pages, mm } = machine;
  let allocatorDepth = 0;
  const spied = pages as unknown as Record<string, (...args: number[]) => unknown>;
  for (const [method, kind] of Object.entries(PRIMITIVES)) {
    const original = spied[method]!.bind(pages);
    spied[method] = (...args) => {
      const isLock = kind === 'flags' && args[1] === 1 << 6;
      if (allocatorDepth === 0) counts[isLock ? 'lock' : kind]++;
      return original(...args);
    };
  }
  for (const method of ['alloc', 'free'] as const) {
    const original = mm[method].bind(mm) as (...args: unknown[]) => unknown;
    Object.assign(mm, {
      [method]: (...args: unknown[]) => {
        allocatorDepth++;
        const result = original(...args);
        allocatorDepth--;
        return result;
      },
    });
  }
  machine.run(() => machine.migrateAll(pfns, MigrateMode.ASYNC));
  for (const kind of Object.keys(counts) as (keyof Operations)[]) counts[kind] /= MIGRATIONS;
  return counts;
}

/** The number in a generation's column of a row of the document's table. */
function documented(row: string, name: GenerationName): number {
  const line = readFileSync(DOC, 'utf8')
    .split('\n')
    .find((text) => text.startsWith(`| ${row}`));
  const cell = line?.split('|')[name === 'list' ? 2 : 3] ?? '';
  return Number(/\d+/.exec(cell)?.[0] ?? Number.NaN);
}

test.each(GENERATIONS)('docs/movable-pages.md says how many atomic operations %s takes', (name) => {
  const { lock, flags, references, links } = countOperations(name);
  expect({ lock, flags, references, links, all: lock + flags + references }).toEqual({
    lock: documented('of them: page lock', name),
    flags: documented('of them: other flags', name),
    references: documented('of them: reference count', name),
    links: documented('list insertions', name),
    all: documented('**atomic operations', name),
  });
});

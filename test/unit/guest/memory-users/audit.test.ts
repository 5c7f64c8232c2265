import { expect, test } from 'vitest';
import { PageFlag } from '../../../../guest/mm/index.ts';
import type { Pfn } from '../../../../shared/index.ts';
import { Machine } from './machine.ts';

/** Frame 0 … of a process with a page, and of a file with one. */
function soundMachine(): { machine: Machine; anon: Pfn; file: Pfn } {
  const machine = new Machine();
  const process = machine.users.startProcess({ name: 'a', anonPages: 4 })!;
  const space = machine.users.createSpace({ name: 'f', kind: 'file', sizePages: 4 })!;
  process.mmap(space);
  machine.run1(() => process.touchRange(0, 5, false));
  machine.run1(() => machine.users.container('dev').pinRange(process, 0, 2));
  expect(machine.audit()).toEqual([]);
  return { machine, anon: process.pfnAt(3), file: space.pfnAt(0) };
}

type Damage = (at: ReturnType<typeof soundMachine>) => void;

const damages: [finding: RegExp, damage: Damage][] = [
  [
    /refcount 2, 1 are accounted for/,
    ({ machine, anon }) => {
      machine.mm.pages.refcount[anon]!++;
    },
  ],
  [
    /refcount 1, 2 are accounted for/,
    ({ machine, file }) => {
      machine.mm.pages.refcount[file]!--;
    },
  ],
  [
    /mapcount 2, 1 entries/,
    ({ machine, anon }) => {
      machine.mm.pages.mapcount[anon]!++;
    },
  ],
  [/not anonymous/, ({ machine, anon }) => machine.mm.pages.setOwner(anon, 7)],
  [/its index is another page's/, ({ machine, anon }) => machine.mm.pages.setMapping(anon, 1, 2)],
  [/not a page of its file/, ({ machine, file }) => machine.mm.pages.setMapping(file, 1, 0)],
  [/not marked as its page/, ({ machine, file }) => machine.mm.pages.setMapping(file, 2, 1)],
  [
    /4 entries|6 entries, counted 5|5 entries, counted 6/,
    ({ machine }) => {
      machine.users.processes.get('a')!.rssPages++;
    },
  ],
  [
    /1 pages in the cache, counted 2/,
    ({ machine }) => {
      machine.users.spaces.get('f')!.nrPages++;
    },
  ],
  [/names an object that does not know it/, ({ machine, anon }) => strayPage(machine, anon)],
  [/LRU list 0: 4 pages, counted 5/, ({ machine }) => machine.folios.lruvec.nrPages[0]!++],
  [
    /on LRU list 0, not its own/,
    ({ machine, anon }) => machine.mm.pages.setFlag(anon, PageFlag.ACTIVE),
  ],
  [
    /pages are isolated, NR_ISOLATED is 1/,
    ({ machine }) => {
      machine.folios.lruvec.isolatedAnonPages++;
    },
  ],
  [/pages are marked LRU/, ({ machine, anon }) => machine.mm.pages.unlink(anon)],
  [
    /nr_dirty is 0, there are 1/,
    ({ machine, file }) => machine.mm.pages.setFlag(file, PageFlag.DIRTY),
  ],
  [
    /nr_writeback is 1, there are 0/,
    ({ machine }) => {
      machine.mm.vmstat.nr_writeback++;
    },
  ],
  [
    /migrates, but is not locked/,
    ({ machine, anon }) => machine.folios.mappings.of(anon)!.unmapForMigration(anon, 3),
  ],
];

/** A page that says it is the process's, and of which no page table knows. */
function strayPage(machine: Machine, anon: Pfn): void {
  const { pages } = machine.mm;
  const pfn = machine.mm.alloc(0, 0);
  pages.owner[pfn] = pages.owner[anon]!;
  pages.mapping[pfn] = pages.mapping[anon]!;
  machine.folios.lruvec.add(pfn);
}

test.each(damages)('the audit says %s', (finding, damage) => {
  const at = soundMachine();
  damage(at);
  expect(at.machine.users.audit().join('\n')).toMatch(finding);
});

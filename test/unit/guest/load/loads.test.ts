/** Programs in the background: what they hold, how fast they write, and that they leave nothing. */
import { describe, expect, test } from 'vitest';
import { PageOwner } from '../../../../guest/mm/index.ts';
import { NS_PER_S } from '../../../../shared/index.ts';
import { inProcess } from '../../../support/in-process.ts';

/** 64 MiB, booted. */
async function machine() {
  const { guest, hypervisor } = await inProcess();
  await hypervisor.runUntil(1e8);
  const forS = (seconds: number) => hypervisor.runUntil(hypervisor.vmm.now + seconds * NS_PER_S);
  const enter = async (line: string): Promise<string | undefined> => {
    hypervisor.console(line);
    await forS(0.05);
    return (await hypervisor.readConsole()).lines[0];
  };
  const count = (name: string): number => guest.statistics()[name] ?? 0;
  return { guest, hypervisor, enter, forS, count };
}

const KINDS: readonly [line: string, holdsPages: number, pagesPerS: number][] = [
  ['kind=churn keep=2000 chunk=16 rate=4000', 2000, 4000],
  ['kind=churn keep=2000 chunk=16 rate=0', 2000, 0],
  ['kind=rewrite set=2000 rate=4000', 2000, 4000],
  ['kind=fork per_second=20 private=100', 100, 2000],
  ['kind=frag size=2000 run=8', 1000, 0],
  ['kind=tmpfs files=8 file=200 per_second=5', 1600, 1000],
  ['kind=idle', 0, 0],
];

describe.each(KINDS)('%s', (line, holdsPages, pagesPerS) => {
  test('holds what it says, writes at its rate, and leaves nothing', async () => {
    const { guest, enter, forS, count } = await machine();
    const free = count('nr_free_pages');
    expect(await enter(`start name=x ${line}`)).toBeUndefined();
    await forS(1);
    expect(free - count('nr_free_pages')).toBeGreaterThanOrEqual(holdsPages);
    expect(free - count('nr_free_pages')).toBeLessThan(holdsPages + 200);
    const written = count('load_written_pages');
    await forS(2);
    expect((count('load_written_pages') - written) / 2).toBeCloseTo(pagesPerS, -2);
    expect(guest.system.audit()).toEqual([]);
    expect(await enter('finish name=x')).toBeUndefined();
    // It looks when it is due.
    await forS(0.5);
    expect(count('nr_free_pages')).toBe(free);
    expect([count('load_failures'), count('console_pending')]).toEqual([0, 0]);
    expect(guest.system.audit()).toEqual([]);
  });
});

test('pressure leaves so much free, whatever others give back', async () => {
  const { enter, forS, count } = await machine();
  await enter('process name=p anonymous=3000');
  await enter('start name=x kind=pressure leave=2000');
  await forS(1);
  expect(count('nr_free_pages')).toBeGreaterThanOrEqual(2000);
  expect(count('nr_free_pages')).toBeLessThan(2300);
  await enter('exit name=p');
  await forS(1);
  expect(count('nr_free_pages')).toBeLessThan(2300);
});

test('a program finds what it has not written', async () => {
  const { guest, enter, forS, count } = await machine();
  await enter('start name=x kind=rewrite set=16 rate=1000');
  const { owner } = guest.system.mm.pages;
  const pfn = owner.indexOf(PageOwner.ANON);
  guest.system.ram.setRecord(pfn, 0xdead);
  await forS(1);
  expect(count('corruptions')).toBe(1);
  expect(guest.system.audit()).toEqual([]);
});

test.each([
  ['start name=x kind=swap', 'expected kind=churn|rewrite|fork|frag|tmpfs|pressure|idle'],
  ['start name=x kind=fork per_second=0 private=1', 'at least 1, found per_second=0'],
  ['start name=x kind=fork per_second=20000 private=1', 'at most 10000'],
  ['start name=taken kind=idle', 'taken runs already'],
])('%s is refused', async (line, reason) => {
  const { enter } = await machine();
  await enter('start name=taken kind=idle');
  expect(await enter(line)).toContain(reason);
});

test('a program that the OOM killer has ended is finished all the same', async () => {
  const { guest, enter, forS } = await machine();
  await enter('start name=x kind=churn keep=20000 chunk=16 rate=100');
  await forS(3);
  expect(await enter('finish name=x')).toBeUndefined();
  expect(guest.system.audit()).toEqual([]);
});

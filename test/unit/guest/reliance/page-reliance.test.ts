/** The table of who relies on a page, row by row, and the form for all pages at once against it. */
import { describe, expect, test } from 'vitest';
import { Gfp } from '../../../../guest/mm/index.ts';
import { Reliance } from '../../../../guest/reliance/page-reliance.ts';
import { Bitmap, NS_PER_MS } from '../../../../shared/index.ts';
import { inProcess } from '../../../support/in-process.ts';

const PLAIN = { initOnAlloc: false, initOnFree: false, pagePoison: false };
const { NONE, CONTENTS, FREED } = Reliance;

async function newGuest(mm: Partial<typeof PLAIN> = {}) {
  const { guest, hypervisor } = await inProcess({
    guest: { strategy: 'alloc', mm: { ...PLAIN, ...mm } },
  });
  await hypervisor.runUntil(100 * NS_PER_MS);
  return { ...guest.system, hypervisor };
}

type System = Awaited<ReturnType<typeof newGuest>>;

/** Both forms, which agree on every page. */
function found({ reliance, ram }: System) {
  const contents = new Bitmap(ram.pageCount);
  const freed = new Bitmap(ram.pageCount);
  const undefinedPages = reliance.write(contents, freed);
  for (let pfn = 0; pfn < ram.pageCount; pfn++) {
    const bulk = contents.get(pfn) ? CONTENTS : freed.get(pfn) ? FREED : NONE;
    if (reliance.of(pfn) !== bulk) expect.fail(`${pfn}: ${reliance.of(pfn)}, all at once ${bulk}`);
  }
  return { contents: contents.count(), freed: freed.count(), undefinedPages };
}

describe('who relies on a page', () => {
  test.each([
    ['nobody before it is written, without init', {}, Gfp.GFP_KERNEL, NONE],
    ['its user where it was asked for as zero', {}, Gfp.GFP_KERNEL | Gfp.__GFP_ZERO, CONTENTS],
    ['its user with init_on_alloc', { initOnAlloc: true }, Gfp.GFP_KERNEL, CONTENTS],
    ['its user with init_on_free', { initOnFree: true }, Gfp.GFP_KERNEL, CONTENTS],
    ['its user with page_poison', { pagePoison: true }, Gfp.GFP_KERNEL, CONTENTS],
  ])('in use: %s', async (_who, mm, gfp, expected) => {
    const system = await newGuest(mm);
    const pfn = system.mm.alloc(0, gfp);
    expect(system.reliance.of(pfn)).toBe(expected);
    expect(found(system).undefinedPages).toBe(expected === NONE ? 1 : 0);
    system.ram.write(pfn);
    expect(system.reliance.of(pfn)).toBe(CONTENTS);
    expect(found(system).undefinedPages).toBe(0);
  });

  test.each([
    ['nobody', {}, NONE],
    ['the next allocation with init_on_free', { initOnFree: true }, FREED],
    ['the next allocation with page_poison', { pagePoison: true }, FREED],
  ])('free, on a buddy or a per-CPU list: %s', async (_who, mm, expected) => {
    const system = await newGuest(mm);
    const pfn = system.mm.alloc(0, Gfp.GFP_KERNEL);
    system.ram.write(pfn);
    system.mm.free(pfn, 0);
    expect(system.reliance.of(pfn)).toBe(expected);
    system.mm.drainAllPcp();
    expect(system.reliance.of(pfn)).toBe(expected);
    expect(found(system).freed).toBe(expected === FREED ? system.mm.freePages() : 0);
  });

  test('a copy of a page that nobody has written is as undefined as it', async () => {
    const system = await newGuest();
    const [from, to] = [0, 0].map(() => system.mm.alloc(0, Gfp.GFP_KERNEL)) as [number, number];
    system.ram.copy(from, to);
    expect([system.reliance.of(from), system.reliance.of(to)]).toEqual([NONE, NONE]);
    system.ram.write(from);
    system.ram.copy(from, to);
    expect(system.reliance.of(to)).toBe(CONTENTS);
  });

  test('in the balloon by the books of the guest, or held for hinting: nobody, and not undefined', async () => {
    const system = await newGuest();
    const before = found(system);
    system.hypervisor.setBalloon(1000);
    await system.hypervisor.runUntil(300 * NS_PER_MS);
    system.hypervisor.vmm.device.hintStart();
    await system.hypervisor.runUntil(600 * NS_PER_MS);
    expect([system.driver.numPages, system.strategy?.heldPages]).not.toContain(0);
    expect(found(system)).toEqual(before);
  });
});

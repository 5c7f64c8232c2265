import { describe, expect, test } from 'vitest';
import { LruList } from '../../../../guest/folio/index.ts';
import { AllocFlag, Gfp, ZoneType } from '../../../../guest/mm/index.ts';
import type { AddressSpace } from '../../../../guest/page-cache/page-cache.ts';
import { SWAP_CLUSTER_MAX } from '../../../../guest/reclaim/vmscan.ts';
import { Errno } from '../../../../shared/index.ts';
import { Machine } from '../memory-users/machine.ts';

function fileOf(machine: Machine, sizePages: number, name = 'f'): AddressSpace {
  return machine.users.createSpace({ name, kind: 'file', sizePages })!;
}

const reclaimNow = (machine: Machine) => machine.users.vmscan.tryToFreeNow(ZoneType.MOVABLE);

describe('the inactive list', () => {
  test('is reclaimed from its old end', () => {
    const machine = new Machine();
    const file = fileOf(machine, 200);
    machine.run1(() => file.read(0, 200));
    const freed = reclaimNow(machine);
    expect(freed).toBeGreaterThanOrEqual(SWAP_CLUSTER_MAX);
    expect(freed).toBeLessThan(2 * SWAP_CLUSTER_MAX);
    const cached = Array.from({ length: 200 }, (_, index) => file.pfnAt(index) >= 0);
    expect(cached.indexOf(true)).toBe(freed);
    expect(cached.lastIndexOf(false)).toBe(freed - 1);
    expect(machine.mm.vmstat.pgsteal_direct).toBe(freed);
    expect(machine.audit()).toEqual([]);
  });

  test('gives pages that were used a second chance', () => {
    const machine = new Machine();
    const file = fileOf(machine, 64);
    machine.run1(() => file.read(0, 64));
    // The first use makes a page referenced, the second one active.
    machine.run1(() => file.read(0, 4));
    expect(machine.mm.vmstat.pgactivate).toBe(4);
    reclaimNow(machine);
    expect(machine.folios.lruvec.nrPages[LruList.ACTIVE_FILE]).toBe(4);
    reclaimNow(machine);
    expect([file.nrPages, file.pfnAt(0) >= 0]).toEqual([4, true]);
    expect(machine.audit()).toEqual([]);
  });

  test('is filled from the active one when it gets short', () => {
    const machine = new Machine();
    const file = fileOf(machine, 64);
    for (let i = 0; i < 3; i++) machine.run1(() => file.read(0, 64));
    expect(machine.folios.lruvec.nrPages[LruList.ACTIVE_FILE]).toBe(64);
    for (let i = 0; i < 10; i++) reclaimNow(machine);
    expect(file.nrPages).toBe(0);
    expect(machine.mm.vmstat.pgdeactivate).toBe(64);
  });

  test('activates mapped pages that several processes use', () => {
    const machine = new Machine();
    const file = fileOf(machine, 32);
    for (const name of ['a', 'b']) {
      const process = machine.users.startProcess({ name, anonPages: 0 })!;
      process.mmap(file);
      machine.run1(() => process.touchRange(0, 32, false));
    }
    const sc = machine.users.vmscan.begin('direct', ZoneType.MOVABLE, SWAP_CLUSTER_MAX);
    sc.priority = 0;
    machine.run1(() => machine.users.vmscan.shrinkNode(sc));
    expect([sc.reclaimed, machine.mm.vmstat.pgactivate]).toEqual([0, 32]);
  });

  test('is not reclaimed for a zone in which its pages are not', () => {
    const machine = new Machine({ ramPages: 8192, movablePages: 4096 });
    const file = fileOf(machine, 64);
    machine.run1(() => file.read(0, 64));
    expect(machine.mm.zoneOf(file.pfnAt(0)).index).toBe(ZoneType.MOVABLE);
    expect(machine.users.vmscan.tryToFreeNow(ZoneType.NORMAL)).toBe(0);
    expect(machine.users.vmscan.tryToFreeNow(ZoneType.MOVABLE)).toBeGreaterThan(31);
  });
});

describe('kswapd', () => {
  test('is woken below the low watermark and reclaims up to the high one', () => {
    const machine = new Machine();
    const zone = machine.mm.zones[ZoneType.DMA]!;
    const slept: number[] = [];
    machine.users.kswapd.hooks = { onSleep: (order) => slept.push(order) };
    const file = fileOf(machine, 8000);
    expect(machine.run1(() => file.read(0, 8000))).toBe(Errno.OK);
    expect(machine.mm.vmstat.pgsteal_kswapd).toBeGreaterThan(3900);
    expect(machine.mm.vmstat.allocstall).toBe(0);
    expect(zone.freePages).toBeGreaterThan(zone.watermarkPages[AllocFlag.WMARK_LOW]!);
    expect(slept.length).toBeGreaterThan(0);
    expect(machine.users.kswapd.isRunning).toBe(false);
    expect(machine.audit()).toEqual([]);
  });

  test('has dirty pages written, and then frees them', () => {
    const machine = new Machine();
    const file = fileOf(machine, 6000);
    expect(machine.run1(() => file.write(0, 6000))).toBe(Errno.OK);
    expect(file.nrPages).toBeLessThan(4096);
    expect(machine.mm.vmstat.pgrotated).toBeGreaterThan(1900);
    expect(machine.mm.vmstat.nr_writeback).toBe(0);
    expect(machine.audit()).toEqual([]);
    const unsaved = Array.from({ length: 6000 }, (_, i) => i).filter(
      (i) => file.pfnAt(i) < 0 && file.storedTag(i) === 0,
    );
    expect(unsaved).toEqual([]);
  });

  test('finds a page that it has had written at the old end of the list', () => {
    const machine = new Machine();
    const file = fileOf(machine, 20);
    machine.run1(() => file.read(10, 10));
    machine.run1(() => file.write(0, 10));
    const { vmscan, gup } = machine.users;
    // Older, but in use.
    for (let index = 10; index < 20; index++) gup.get(file.pfnAt(index));
    // The first look takes what was referenced, the second one writes.
    for (let look = 0; look < 2; look++) {
      const sc = vmscan.begin('kswapd', ZoneType.MOVABLE, 5);
      sc.priority = 0;
      machine.run1(() => vmscan.shrinkNode(sc));
    }
    const oldest = machine.folios.lruvec.oldest(LruList.INACTIVE_FILE);
    expect(machine.mm.pages.mappingIndex(oldest)).toBeLessThan(10);
    expect(machine.mm.vmstat.pgrotated).toBe(10);
  });

  test('gives up when there is nothing to reclaim, until direct reclaim finds something', () => {
    const machine = new Machine();
    const process = machine.users.startProcess({ name: 'a', anonPages: 4095, oomScoreAdj: -1000 })!;
    expect(machine.run1(() => process.touchRange(0, 4095, true))).toBe(Errno.ENOMEM);
    const runs = machine.mm.vmstat.pageoutrun;
    expect(runs).toBeGreaterThanOrEqual(16);
    machine.users.kswapd.wake(0, ZoneType.NORMAL);
    machine.run();
    expect(machine.mm.vmstat.pageoutrun).toBe(runs);
  });
});

describe('shrinkers', () => {
  /** A cache of blocks of 16 pages. */
  function withCache(machine: Machine, blocks: number) {
    const held = Array.from({ length: blocks }, () => machine.mm.alloc(4, Gfp.GFP_KERNEL));
    const asked: number[] = [];
    machine.users.vmscan.shrinkers.register({
      name: 'blocks',
      count: () => held.length * 16,
      scan(nr) {
        asked.push(nr);
        const count = Math.min(held.length, Math.ceil(nr / 16));
        for (const pfn of held.splice(0, count)) machine.mm.free(pfn, 4);
        return count * 16;
      },
    });
    return { held, asked };
  }

  test('are asked for more the less reclaim finds elsewhere', () => {
    const machine = new Machine();
    const { held, asked } = withCache(machine, 64);
    expect(reclaimNow(machine)).toBe(128);
    expect(held).toHaveLength(56);
    expect(asked).toEqual([128]);
    expect(machine.mm.vmstat.slabs_scanned).toBe(128);
  });

  test('owe what was too little to ask for to the next time', () => {
    const machine = new Machine();
    const { asked } = withCache(machine, 64);
    machine.users.vmscan.shrinkers.shrink(5);
    expect(asked).toEqual([]);
    machine.users.vmscan.shrinkers.shrink(5);
    expect(asked).toEqual([128]);
  });

  test('are asked for less than a batch when that is all', () => {
    const machine = new Machine();
    const { held } = withCache(machine, 2);
    for (let i = 0; i < 8; i++) reclaimNow(machine);
    expect(held).toHaveLength(0);
    expect(reclaimNow(machine)).toBe(0);
  });

  test('let an allocation succeed that would fail', () => {
    const machine = new Machine();
    const { held } = withCache(machine, 128);
    const process = machine.users.startProcess({ name: 'a', anonPages: 3000 })!;
    expect(machine.run1(() => process.touchRange(0, 3000, true))).toBe(Errno.OK);
    expect(held.length).toBeLessThan(128);
    expect(machine.mm.vmstat.oom_kill).toBe(0);
    expect(machine.mm.audit()).toEqual([]);
  });
});

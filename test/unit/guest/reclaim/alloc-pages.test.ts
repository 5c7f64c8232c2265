import { describe, expect, test } from 'vitest';
import { Gfp } from '../../../../guest/mm/index.ts';
import { Errno, Prng } from '../../../../shared/index.ts';
import { Machine } from '../memory-users/machine.ts';

/** A machine with next to nothing free, all of it `held` by the kernel. */
function fullMachine(): { machine: Machine; release: (count: number) => void } {
  const machine = new Machine();
  const held: number[] = [];
  for (;;) {
    const pfn = machine.mm.alloc(0, Gfp.GFP_NOWAIT);
    if (pfn < 0) break;
    held.push(pfn);
  }
  machine.run();
  return {
    machine,
    release: (count) => {
      for (const pfn of held.splice(0, count)) machine.mm.free(pfn, 0);
    },
  };
}

function* freeLater(release: () => void) {
  yield { kind: 'sleep', ns: 1000 } as const;
  release();
  return 1;
}

describe('direct reclaim', () => {
  test('makes room for who may wait, and does not for who may not', () => {
    const machine = new Machine();
    const file = machine.users.createSpace({ name: 'f', kind: 'file', sizePages: 4000 })!;
    machine.run1(() => file.read(0, 4000));
    while (machine.mm.alloc(0, Gfp.GFP_NOWAIT) >= 0);
    const { source } = machine.users;
    expect(machine.run1(() => source.allocPages(0, Gfp.GFP_NOWAIT, 0))).toBe(Errno.ENOMEM);
    const failures = machine.mm.vmstat.alloc_failures;
    expect(machine.run1(() => source.allocPages(0, Gfp.GFP_KERNEL, 0))).toBeGreaterThan(0);
    expect(machine.mm.vmstat.alloc_failures).toBe(failures);
  });

  test('counts one failure for each allocation that fails, however often it was tried', () => {
    const { machine } = fullMachine();
    const failures = machine.mm.vmstat.alloc_failures;
    const { source } = machine.users;
    expect(machine.run1(() => source.allocPages(0, Gfp.GFP_KERNEL, 0))).toBe(Errno.ENOMEM);
    expect(machine.mm.vmstat.alloc_failures).toBe(failures + 1);
    expect(machine.mm.vmstat.allocstall).toBeGreaterThan(0);
  });

  test('serves plain allocations through the allocator’s hook', () => {
    const machine = new Machine();
    const file = machine.users.createSpace({ name: 'f', kind: 'file', sizePages: 4000 })!;
    machine.run1(() => file.read(0, 4000));
    while (machine.mm.alloc(0, Gfp.GFP_NOWAIT) >= 0);
    const before = machine.mm.vmstat.pgsteal_direct;
    expect(machine.mm.alloc(0, Gfp.GFP_KERNEL)).toBeGreaterThan(0);
    expect(machine.mm.vmstat.pgsteal_direct).toBeGreaterThanOrEqual(before + 32);
  });
});

describe('direct compaction', () => {
  /** Every other page is free, and `compact` frees a block when it is called for the n-th time. */
  function fragmented(succeedsAt: number) {
    const machine = new Machine();
    const slab = machine.users.slab('s', { order: 0, type: 'unmovable' });
    expect(machine.run1(() => slab.alloc(4095))).toBe(Errno.ENOMEM);
    while (machine.mm.alloc(0, Gfp.__GFP_MEMALLOC) >= 0);
    slab.freeAllBut(2);
    machine.mm.drainAllPcp();
    const calls: number[] = [];
    machine.users.source.directCompact = function* (order) {
      yield { kind: 'cpu', ns: 1000 };
      calls.push(order);
      if (calls.length === succeedsAt) slab.freeAll();
      return calls.length >= succeedsAt;
    };
    return { machine, calls };
  }

  test.each([
    [9, 0, 1, 1, 'of a costly order: it comes first'],
    [9, 0, 2, 2, 'of a costly order: once more after reclaim'],
    [9, 0, 3, -2, 'of a costly order: then it fails'],
    [9, Gfp.__GFP_NORETRY, 2, -1, 'of a costly order that must not try again'],
    [9, Gfp.__GFP_RETRY_MAYFAIL, 3, -2, 'that may fail, without progress of reclaim'],
    [2, 0, 2, 2, 'of a small unmovable order'],
  ])('order %i, flags %i, success at try %i: %i tries, %s', (order, flags, at, tries) => {
    const { machine, calls } = fragmented(at);
    const allocate = () => machine.users.source.allocPages(order, Gfp.GFP_KERNEL | flags, 0);
    const pfn = machine.run1(allocate);
    expect(calls).toHaveLength(Math.abs(tries));
    if (tries > 0) expect(pfn).toBeGreaterThanOrEqual(0);
    else expect(pfn).toBe(Errno.ENOMEM);
  });
});

test('a costly order does not cost the whole page cache', () => {
  const machine = new Machine();
  const file = machine.users.createSpace({ name: 'f', kind: 'file', sizePages: 3000 })!;
  machine.run1(() => file.read(0, 3000));
  let compactions = 0;
  machine.users.source.directCompact = function* () {
    compactions++;
    yield { kind: 'cpu', ns: 1000 };
    return false;
  };
  const allocate = () => machine.users.source.allocPages(10, Gfp.GFP_KERNEL, 0);
  expect(machine.run1(allocate)).toBe(Errno.ENOMEM);
  expect(compactions).toBe(2);
  expect(file.nrPages).toBeGreaterThan(2900);
});

describe('out of memory', () => {
  test('notifiers are asked by priority, and who freed something keeps the killer away', () => {
    const { machine, release } = fullMachine();
    machine.users.startProcess({ name: 'a', anonPages: 10 });
    const asked: string[] = [];
    machine.users.oom.registerOomNotifier(10, function* () {
      asked.push('low');
      return yield* freeLater(() => {});
    });
    machine.users.oom.registerOomNotifier(80, function* () {
      asked.push('high');
      return yield* freeLater(() => release(200));
    });
    const { source } = machine.users;
    expect(machine.run1(() => source.allocPages(0, Gfp.GFP_KERNEL, 0))).toBeGreaterThan(0);
    expect(asked).toEqual(['high', 'low']);
    expect(machine.mm.vmstat.oom_kill).toBe(0);
  });

  test('the process with most pages is killed, and its memory serves the next', () => {
    const machine = new Machine();
    const { users } = machine;
    for (const [name, anonPages] of [
      ['small', 500],
      ['large', 3000],
      ['last', 3000],
    ] as const) {
      const process = users.startProcess({ name, anonPages })!;
      expect(machine.run1(() => process.touchRange(0, anonPages, true))).toBe(Errno.OK);
    }
    expect(machine.mm.vmstat.oom_kill).toBe(1);
    const alive = [...users.processes.values()].filter(({ isAlive }) => isAlive);
    expect(alive.map(({ name }) => name)).toEqual(['small', 'last']);
    expect(machine.audit()).toEqual([]);
  });

  test('oom_score_adj shifts who is chosen, and −1000 forbids it', () => {
    const machine = new Machine();
    const { users } = machine;
    for (const [name, anonPages, oomScoreAdj] of [
      ['sshd', 2500, -1000],
      ['daemon', 1000, 0],
      ['victim', 400, 500],
    ] as const) {
      const process = users.startProcess({ name, anonPages, oomScoreAdj })!;
      machine.run1(() => process.touchRange(0, anonPages, true));
    }
    const big = users.startProcess({ name: 'big', anonPages: 300, oomScoreAdj: -1000 })!;
    expect(machine.run1(() => big.touchRange(0, 300, true))).toBe(Errno.OK);
    expect(users.processes.get('victim')!.isAlive).toBe(false);
    expect(users.processes.get('daemon')!.isAlive).toBe(true);
  });

  test.each([
    ['costly', 4, Gfp.GFP_KERNEL],
    ['__GFP_RETRY_MAYFAIL', 0, Gfp.GFP_KERNEL | Gfp.__GFP_RETRY_MAYFAIL],
    ['__GFP_NORETRY', 0, Gfp.GFP_KERNEL | Gfp.__GFP_NORETRY],
    ['GFP_NOFS', 0, Gfp.GFP_NOFS],
    ['below 4 GiB', 0, Gfp.GFP_KERNEL | Gfp.__GFP_DMA32],
  ])('nobody is killed for an allocation that is %s', (_what, order, gfp) => {
    const { machine, release } = fullMachine();
    const process = machine.users.startProcess({ name: 'a', anonPages: 10 })!;
    release(20);
    machine.mm.drainAllPcp();
    machine.run1(() => process.touchRange(0, 10, true));
    release(0);
    while (machine.mm.alloc(0, Gfp.GFP_NOWAIT) >= 0);
    const allocate = () => machine.users.source.allocPages(order, gfp, 0);
    expect(machine.run1(allocate)).toBe(Errno.ENOMEM);
    expect(process.isAlive).toBe(true);
  });

  test('whoever finds the killer at work waits for it', () => {
    const { machine, release } = fullMachine();
    let asked = 0;
    machine.users.oom.registerOomNotifier(80, function* () {
      asked++;
      yield { kind: 'sleep', ns: 2e6 };
      release(200);
      return 200;
    });
    const allocate = () => machine.users.source.allocPages(0, Gfp.GFP_KERNEL, 0);
    for (const pfn of machine.run(allocate, allocate)) expect(pfn).toBeGreaterThan(0);
    expect(asked).toBe(1);
  });
});

test('memory of the kernel fragments what is free, and some of it can be given back', () => {
  const machine = new Machine();
  const slab = machine.users.slab('dentry', { order: 1, type: 'reclaimable' });
  expect(machine.run1(() => slab.alloc(1000))).toBe(Errno.OK);
  slab.freeSome(100, new Prng(7));
  expect([slab.blockCount, machine.usedPages]).toEqual([900, 1800]);
  slab.freeAllBut(9);
  expect(slab.blockCount).toBe(100);
  expect(machine.mm.freeCountByOrder()[10]).toBeLessThan(3);
  expect(machine.audit()).toEqual([]);
  slab.freeAll();
  expect(machine.usedPages).toBe(0);
});

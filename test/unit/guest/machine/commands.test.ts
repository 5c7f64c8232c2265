/** Commands of the guest's console on a real kernel: what they refuse, what they leave behind. */
import { describe, expect, test } from 'vitest';
import { PageOwner } from '../../../../guest/mm/index.ts';
import { DEFAULT_KERNEL_OPTIONS, type KernelOptions } from '../../../../protocol/index.ts';
import { inProcess } from '../../../support/in-process.ts';

/** 64 MiB, booted; a line runs until nothing is pending. */
async function machine(kernel: Partial<KernelOptions> = {}) {
  const { guest, hypervisor } = await inProcess({
    guest: { kernel: { ...DEFAULT_KERNEL_OPTIONS, ...kernel } },
  });
  await hypervisor.runUntil(1e8);
  const enter = async (line: string): Promise<string | undefined> => {
    hypervisor.console(line);
    for (;;) {
      const { pending, lines } = await hypervisor.readConsole();
      if (pending === 0) return lines[0];
      await hypervisor.runUntil(hypervisor.vmm.now + 1e7);
    }
  };
  return { guest, hypervisor, enter, counters: () => guest.statistics() };
}

describe('a command refuses', () => {
  test.each([
    ['process name=vm anonymous=10', 'there is a process vm already'],
    ['exit name=no', 'there is no process no'],
    ['pin process=no size=1 by=vfio', 'there is no process no'],
    ['pin process=vm size=101 by=vfio', 'the process has only 100 pages'],
    ['pin process=vm size=1 by=magic', 'expected by=vfio|longterm|short, found by=magic'],
    ['free name=no', 'nothing has the name no'],
    ['slab name=s size=4', 'expected a new name, found s'],
    ['slab name=t size=1000000', /^ENOMEM after \d+ of 1000000 blocks$/],
    ['mapped_driver name=m size=1000000', 'ENOMEM'],
    ['zspool name=z objects=1 size=5000', 'EINVAL after 0 objects'],
    ['contig start=16000 size=1000', 'EINVAL: no such frames, or of two zones'],
    ['soft_offline pages=3 of=balloon', 'only 0 pages of balloon to take offline'],
    ['compact how=direct', 'expected order=NUMBER, found nothing'],
  ])('%s: %s', async (line, reason) => {
    const { enter, hypervisor } = await machine();
    expect(await enter('process name=vm anonymous=100')).toBeUndefined();
    expect(await enter('slab name=s size=4')).toBeUndefined();
    expect(await enter(line)).toEqual(
      typeof reason === 'string' ? reason : expect.stringMatching(reason),
    );
    expect(await hypervisor.verify()).toEqual([]);
  });
});

test('what commands take is free again once they have given it back', async () => {
  const { enter, counters, guest } = await machine();
  const before = counters()['nr_free_pages'];
  const lines = [
    'process name=a anonymous=500',
    'process name=b shmem=500',
    'pin process=b size=100 by=vfio',
    'pin process=b size=50 by=short',
    'slab name=s size=64 order=2',
    'fragment name=f size=1000 keep_every=3',
    'zspool name=z objects=500 size=700 keep_every=2',
    'mapped_driver name=d size=50 dma=true',
    'page_tables name=t size=2048',
    'allocate order=4 count=3',
    'compact how=manual',
    'unpin name=b',
    'exit name=a',
    'exit name=b',
    'free name=s',
    'free name=f',
    'free name=z',
    'free name=d',
    'free name=t',
    'free_allocated',
  ];
  for (const line of lines) expect([line, await enter(line)]).toEqual([line, undefined]);
  expect(counters()['nr_free_pages']).toBe(before);
  expect(guest.system.audit()).toEqual([]);
});

test('memory that is still pinned when its process is gone is freed with it', async () => {
  const { enter, counters } = await machine();
  const before = counters()['nr_free_pages'];
  await enter('process name=b shmem=500');
  await enter('pin process=b size=500 by=longterm');
  await enter('exit name=b');
  expect(counters()['nr_free_pages']).toBe(before);
});

describe('in ZONE_MOVABLE', () => {
  const ZONE_START = 12_288;
  const zone = { movableZonePages: 4096 };
  const contig = `contig start=${ZONE_START} size=4096`;

  test.each(['list', 'pfn'] as const)(
    'a long-term pin moves its page out first (%s)',
    async (movableGeneration) => {
      const { enter, counters, hypervisor } = await machine({ ...zone, movableGeneration });
      await enter('process name=vm shmem=6000');
      expect(await enter('pin process=vm size=6000 by=vfio')).toBeUndefined();
      // All of the zone but what its watermarks keep free.
      expect(counters()['pgmigrate_success']).toBeGreaterThan(4000);
      await enter(contig);
      expect(counters()).toMatchObject({ contig_success: 1, contig_fail: 0 });
      expect(await hypervisor.verify()).toEqual([]);
    },
  );

  test('a short pin does not, and is in the way', async () => {
    const { enter, counters } = await machine(zone);
    await enter('process name=vm shmem=6000');
    await enter('pin process=vm size=6000 by=short');
    await enter(contig);
    expect(counters()).toMatchObject({ contig_success: 0, contig_fail: 1 });
  });

  test('a long-term pin fails where there is no other memory', async () => {
    const { enter, hypervisor } = await machine(zone);
    await enter('process name=vm shmem=4096');
    await enter('slab name=rest size=10500');
    expect(await enter('pin process=vm size=4096 by=vfio')).toBe('ENOMEM');
    expect(await hypervisor.verify()).toEqual([]);
  });
});

describe('without memory', () => {
  test('the largest process is killed, and the line of the others goes on', async () => {
    const { enter, counters, hypervisor } = await machine();
    await enter('process name=large anonymous=9000');
    expect(await enter('process name=small anonymous=8000')).toBeUndefined();
    expect(counters()['oom_kill']).toBe(1);
    expect(await enter('exit name=large')).toBeUndefined();
    expect(await enter('exit name=small')).toBeUndefined();
    expect(await hypervisor.verify()).toEqual([]);
  });

  test('a process that is the largest itself ends, which is no failure', async () => {
    const { enter, counters } = await machine();
    const before = counters()['nr_free_pages'];
    expect(await enter('process name=huge anonymous=20000')).toBeUndefined();
    expect([counters()['oom_kill'], counters()['nr_free_pages']]).toEqual([1, before]);
  });
});

test('verify finds a page whose content its process did not write', async () => {
  const { enter, guest, hypervisor } = await machine();
  await enter('process name=vm anonymous=10');
  const { pages } = guest.system.mm;
  guest.system.ram.write(pages.owner.indexOf(PageOwner.ANON));
  expect(await hypervisor.verify()).toEqual([
    expect.stringMatching(/^page 0 of vm \(frame \d+\) has lost what was written to it$/),
  ]);
});

test('verify finds a reference that nobody holds', async () => {
  const { enter, guest, hypervisor } = await machine();
  await enter('process name=vm shmem=10');
  const { pages } = guest.system.mm;
  pages.refcount[pages.owner.indexOf(PageOwner.SHMEM)]! += 1;
  expect(await hypervisor.verify()).toEqual([
    expect.stringMatching(/^frame \d+: refcount 3, 2 are accounted for$/),
  ]);
});

test('a child shares what its parent wrote until one of them writes', async () => {
  const { enter, counters, hypervisor } = await machine();
  await enter('process name=parent anonymous=1000');
  const before = counters()['nr_free_pages']!;
  await enter('fork process=parent name=child');
  expect(counters()['nr_free_pages']).toBe(before);
  await enter('touch process=child size=300 access=write');
  await enter('touch process=parent access=read');
  expect(counters()['nr_free_pages']).toBe(before - 300);
  expect(await hypervisor.verify()).toEqual([]);
  expect(await enter('fork process=parent name=child')).toBe('EBUSY');
  expect(await enter('touch process=child size=1001 access=read')).toBe(
    'the process has only 1000 pages',
  );
});

test('files fill the page cache, are written back, and make room for a process', async () => {
  const { enter, counters, hypervisor } = await machine();
  await enter('read_file name=clean size=6000');
  await enter('write_file name=dirty size=2000');
  expect(counters()).toMatchObject({ nr_file_pages: 8000, pgmajfault: expect.any(Number) });
  expect(await enter('process name=vm anonymous=12000')).toBeUndefined();
  expect(counters()['oom_kill']).toBe(0);
  expect(counters()['pgsteal_kswapd']! + counters()['pgsteal_direct']!).toBeGreaterThan(4000);
  await enter('sync_file name=dirty');
  expect(counters()).toMatchObject({ nr_dirty: 0, nr_writeback: 0 });
  expect(await hypervisor.verify()).toEqual([]);
  await enter('drop_file name=clean');
  await enter('drop_file name=dirty');
  expect(counters()['nr_file_pages']).toBe(0);
});

test('a driver that waits for memory is frozen and restored one after the other', async () => {
  const { enter, guest, hypervisor } = await machine();
  hypervisor.setBalloon(16_384);
  await hypervisor.runUntil(hypervisor.vmm.now + 2e8);
  expect(guest.statistics()['balloon_out_of_puff']).toBeGreaterThan(0);
  hypervisor.console('freeze');
  expect(await enter('restore')).toBeUndefined();
  expect(guest.system.driver.state).toBe('ready');
  expect(await hypervisor.verify()).toEqual([]);
});

test.each([
  ['of a program', 'process name=a anonymous=10', PageOwner.ANON],
  ['of a clean file', 'read_file name=f size=10', PageOwner.FILE],
  ['of a pool', 'zspool name=z objects=10 size=700', PageOwner.ZSMALLOC],
  ['of a driver that user space maps', 'mapped_driver name=d size=10', PageOwner.DRIVER],
  ['of a page table', 'page_tables name=t size=512', PageOwner.TABLE],
])(
  'a page %s that holds something else is found by the audit, and counts once',
  async (_, line, owner) => {
    const { guest, enter, counters } = await machine();
    const { pages } = guest.system.mm;
    const before = pages.owner.slice();
    await enter(line);
    const pfn = pages.owner.findIndex((one, at) => one === owner && before[at] !== owner);
    expect([guest.system.audit(), counters()['corruptions']]).toEqual([[], 0]);
    guest.system.ram.setRecord(pfn, 0xdead);
    for (let look = 0; look < 2; look++) {
      expect(guest.system.audit()).toEqual([expect.stringContaining(`${pfn}`)]);
      expect(counters()['corruptions']).toBe(1);
    }
  },
);

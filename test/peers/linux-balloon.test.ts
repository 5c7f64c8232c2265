/** An unmodified kernel on our device: what its balloon driver does, and what the kernel says of it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HintStatus } from '../../host/balloon/hinting.ts';
import { Kpf } from '../../lab/recording/kpageflags.ts';
import { Bitmap, MIB, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { LINUX_MEMORY_BYTES, LinuxMachine, NO_INIT } from '../support/linux-machine.ts';

const PAGES = (bytes: number) => bytes / PAGE_SIZE_BYTES;

describe('memory of an idle kernel', () => {
  let machine: LinuxMachine;

  beforeAll(async () => {
    machine = await LinuxMachine.start({
      device: { freePageHint: true, statsVq: true, pageReporting: false },
    });
    await machine.shell('bind');
  });
  afterAll(() => machine[Symbol.asyncDispose]());

  it('is free where /proc/kpageflags says BUDDY', async () => {
    const before = await machine.hypervisor.vmm.getFreeSet();
    const [buddy] = await machine.pagesWith(Kpf.BUDDY);
    const after = await machine.hypervisor.vmm.getFreeSet();
    // The dump itself takes some pages and gives them back.
    const sure = both(before, after);
    const maybe = either(before, after);
    expect(sure.count()).toBeGreaterThan(PAGES(LINUX_MEMORY_BYTES) / 2);
    expect(sure.count() - both(sure, buddy!).count()).toBeLessThan(256);
    expect(buddy!.count() - both(buddy!, maybe).count()).toBeLessThan(256);
  });

  it('is given to the balloon: the inflated pages are those with OFFLINE', async () => {
    const { hypervisor } = machine;
    hypervisor.setBalloon(PAGES(32 * MIB));
    expect(await machine.until(() => hypervisor.vmm.device.actualPages === PAGES(32 * MIB))).toBe(
      true,
    );
    const [offline] = await machine.pagesWith(Kpf.OFFLINE);
    expect(offline!.count()).toBe(PAGES(32 * MIB));
    expect(same(offline!, hypervisor.vmm.device.inflatedPages)).toBe(true);
    hypervisor.setBalloon(0);
    expect(await machine.until(() => hypervisor.vmm.device.actualPages === 0)).toBe(true);
    const [none] = await machine.pagesWith(Kpf.OFFLINE);
    expect(none!.count()).toBe(0);
  });

  it('is reported in statistics as the kernel counts it', async () => {
    const { balloon } = machine.hypervisor;
    balloon.setStatsPollingInterval(1);
    await machine.waitMs(3000);
    const { stats, last_update_ns, stale } = balloon.guestStats();
    balloon.setStatsPollingInterval(0);
    const meminfo = (await machine.shell('cat /proc/meminfo')).map((line) => line.split(/:? +/));
    const kib = (name: string) => Number(meminfo.find(([key]) => key === name)?.[1]);
    expect(last_update_ns).toBeGreaterThan(0);
    expect(stale).toBe(false);
    expect(stats['stat-total-memory']).toBe(kib('MemTotal') * 1024);
    for (const [name, key] of [
      ['stat-free-memory', 'MemFree'],
      ['stat-available-memory', 'MemAvailable'],
      ['stat-disk-caches', 'Cached'],
    ] as const) {
      expect(Math.abs(Number(stats[name]) / 1024 - kib(key)), name).toBeLessThan(1024);
    }
    expect(stats['stat-minor-faults']).toBeGreaterThan(0);
    expect(stats['stat-swap-in']).toBe(0);
  });

  it('is hinted from the free lists, held until DONE, and free again', async () => {
    const { vmm } = machine.hypervisor;
    const hinted = new Bitmap(vmm.options.ramPages);
    vmm.hintConsumer = {
      onHint: (firstPfn, pageCount) => hinted.setRange(firstPfn, pageCount),
      afterHints: async () => undefined,
    };
    const [before] = await machine.pagesWith(Kpf.BUDDY);
    vmm.device.hintStart();
    expect(await machine.until(() => vmm.device.hintStatus === HintStatus.STOP, 5000)).toBe(true);
    vmm.hintConsumer = null;
    expect(hinted.count()).toBeGreaterThan(before!.count() / 2);
    expect(hinted.count() - both(hinted, before!).count()).toBe(0);
    const [held] = await machine.pagesWith(Kpf.BUDDY);
    expect(both(hinted, held!).count()).toBe(0);
    // The oracle counts as unused what the driver only holds.
    const unused = await vmm.getFreeSet();
    expect(both(hinted, unused).count()).toBe(hinted.count());
    vmm.device.hintDone();
    await machine.waitMs(500);
    const [returned] = await machine.pagesWith(Kpf.BUDDY);
    expect(both(hinted, returned!).count()).toBeGreaterThan(hinted.count() - 512);
  });
});

describe('free pages that the kernel reports', () => {
  /** Guest time for some passes of page reporting, one every two seconds. */
  const REPORTED_MS = 8_000;

  it.each([
    { kernel: NO_INIT, poison: null, discarded: true },
    { kernel: `${NO_INIT} init_on_free=1`, poison: 0, discarded: true },
    { kernel: `${NO_INIT} page_poison=1`, poison: 0xaaaa_aaaa, discarded: false },
  ])('are discarded unless they hold a pattern: $kernel', async ({ kernel, poison, discarded }) => {
    await using machine = await LinuxMachine.start({
      kernelArguments: kernel,
      device: { pageReporting: true, pagePoison: true },
    });
    const { vmm } = machine.hypervisor;
    expect(await machine.shell('bind')).toEqual([]);
    // More in large blocks than the kernel keeps to itself.
    await machine.shell('dd if=/dev/urandom of=/tmp/used bs=1M count=16 2>/dev/null; rm /tmp/used');
    await machine.waitMs(REPORTED_MS);
    const { report_pages, reports_poisoned, discarded_pages } = vmm.device.metrics;
    expect(report_pages).toBeGreaterThan(PAGES(16 * MIB));
    expect(reports_poisoned > 0).toBe(!discarded);
    expect(discarded_pages).toBe(discarded ? report_pages : 0);
    if (poison !== null) expect(vmm.device.poisonVal).toBe(poison);
    // What was given up is still the kernel's to use.
    expect(
      await machine.shell('cd /tmp; cat /bin/busybox >a; cat a a a a >b; cmp a /bin/busybox'),
    ).toEqual([]);
    expect(await machine.hypervisor.verify()).toEqual([]);
    expect(vmm.device.protocolViolations).toBe(0);
  });
});

function both(one: Bitmap, other: Bitmap): Bitmap {
  const result = new Bitmap(one.bitCount);
  for (let i = 0; i < one.words.length; i++) result.words[i] = one.words[i]! & other.words[i]!;
  return result;
}

function either(one: Bitmap, other: Bitmap): Bitmap {
  const result = one.clone();
  result.or(other);
  return result;
}

function same(one: Bitmap, other: Bitmap): boolean {
  return one.words.every((word, i) => word === other.words[i]);
}

/**
 * A real kernel is migrated with its own hinted pages left out, and goes on in the memory that a
 * destination holds: what was not sent reads zero there.
 */
import { describe, expect, it } from 'vitest';
import { HintStatus } from '../../host/balloon/hinting.ts';
import { DEFAULT_DIRTY_LOG, type MigrateParams } from '../../protocol/index.ts';
import { MIB } from '../../shared/index.ts';
import { LinuxMachine, type LinuxMachineOptions } from '../support/linux-machine.ts';

const RUNS = 10;
const MIGRATE = {
  bandwidthBytesPerS: 20 * MIB,
  downtimeLimitMs: 300,
  ...DEFAULT_DIRTY_LOG,
} as const;
/** Far more than was hinted and is used again. */
const MANY_PAGES = 5000;

/** Files with random content, a counter that never stops, and one who uses memory again and again. */
const SET_UP = [
  'cd /tmp',
  'for i in 1 2 3 4; do dd if=/dev/urandom of=file$i bs=64k count=8 2>/dev/null; done',
  'md5sum file? >sums; cat file? file? | md5sum >sum',
  '(n=0; while :; do n=$((n+1)); echo $n >.n; mv .n count; sleep 0.01; done) >/dev/null 2>&1 &',
  '(while :; do cat /bin/busybox /proc/kallsyms >again; md5sum again; done) >/dev/null 2>&1 &',
  'echo $! >again.pid',
].reduce((line, next) => (line.endsWith('&') ? `${line} ${next}` : `${line}; ${next}`));
/** More than the hints left free: the kernel takes hinted blocks back and uses them. */
const GROW =
  '(for i in 0 1 2 3 4 5 6 7 8 9; do cat file? file? >grown$i; done; touch grown) >/dev/null 2>&1 &';
const CHECK = [
  'while [ ! -e grown ]; do sleep 0.1; done',
  'kill $(cat again.pid)',
  'md5sum -c sums 2>&1 | grep -v OK',
  'for i in 1 5 9; do md5sum <grown$i | cmp - sum; done',
].join('; ');

async function migrated(
  after: number,
  params: Partial<MigrateParams> = {},
  options: LinuxMachineOptions = {},
): Promise<{ machine: LinuxMachine; report: Awaited<ReturnType<LinuxMachine['migrate']>> }> {
  const machine = await LinuxMachine.start(options);
  expect(await machine.shell('bind')).toEqual([]);
  expect(await machine.shell(SET_UP)).toEqual([]);
  // Each run meets the workload at another moment.
  await machine.waitMs(100 + 37 * after);
  expect(await machine.shell(GROW)).toEqual([]);
  return { machine, report: await machine.migrate({ ...MIGRATE, ...params }) };
}

describe('live migration of a real kernel', () => {
  it.each(Array.from({ length: RUNS }, (_, i) => i + 1))(
    'keeps what is in use, run %i',
    async (run) => {
      const { machine, report } = await migrated(run);
      await using _ = machine;
      const { device } = machine.hypervisor.vmm;
      expect(report.migration.status).toBe('completed');
      expect(report.memory.lost_pages).toBe(0);
      expect(report.migration.skipped_pages).toBeGreaterThan(MANY_PAGES);
      expect(report.migration.resent_pages).toBeGreaterThan(0);
      expect(report.hints.precision_at_use).toBe(1);
      expect(await machine.shell(CHECK)).toEqual([]);
      const [count] = await machine.shell('cat count');
      await machine.waitMs(300);
      const [later] = await machine.shell('cat count');
      expect(Number(later)).toBeGreaterThan(Number(count));
      // It gives memory back and hints again.
      expect(await machine.shell('rm grown*')).toEqual([]);
      await machine.waitMs(200);
      const before = device.metrics.hint_pages_accepted;
      device.hintStart();
      expect(await machine.until(() => device.hintStatus === HintStatus.STOP, 5000)).toBe(true);
      device.hintDone();
      expect(device.metrics.hint_pages_accepted - before).toBeGreaterThan(MANY_PAGES);
      expect(await machine.hypervisor.verify()).toEqual([]);
      expect(device.protocolViolations).toBe(0);
    },
  );

  it('is caught when a page that was hinted and used again is never sent', async () => {
    // Nothing is sent twice, so it must take longer to meet the reuse.
    const slow = { bandwidthBytesPerS: 8 * MIB };
    const { machine, report } = await migrated(1, slow, { plant: { neverResendHinted: true } });
    await using _ = machine;
    expect(report.memory.lost_pages).toBeGreaterThan(0);
    expect(await damageOf(machine)).not.toEqual([]);
  });
});

/** What the guest notices: wrong sums, an oops, or that it does not go on at all. */
async function damageOf(machine: LinuxMachine): Promise<readonly string[]> {
  try {
    const wrong = await machine.shell(CHECK, 20_000);
    return [...wrong, ...(await machine.hypervisor.verify())];
  } catch (error) {
    return [String(error)];
  }
}

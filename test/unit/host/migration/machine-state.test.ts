/** What travels of a machine: the guest notices nothing, and nonsense is refused by its field. */
import { describe, expect, test } from 'vitest';
import { loadStates, saveStates } from '../../../../host/migration/machine-state.ts';
import type { DeviceState } from '../../../../host/migration/stream.ts';
import { Vmm } from '../../../../host/vmm.ts';
import { EventLog, NS_PER_MS, Prng } from '../../../../shared/index.ts';
import { inProcess, MIGRATE, moveToNewHost } from '../../../support/in-process.ts';

type Machine = Awaited<ReturnType<typeof inProcess>>;

/** A balloon that grows, statistics that are polled, and rounds of hinting, all under way. */
async function busyMachine(seed: number): Promise<Machine> {
  const machine = await inProcess({
    seed,
    guest: { strategy: 'iterate' },
    device: { statsVq: true },
    // The balloon is still growing at the switchover, with a buffer at the device.
    costs: { balloonPfnNs: 200_000, notifyNs: 50_000 },
  });
  const { hypervisor } = machine;
  await hypervisor.runUntil(60 * NS_PER_MS);
  hypervisor.balloon.setStatsPollingInterval(0.003);
  hypervisor.setBalloon(6000);
  const instant = new Prng(seed).split('instant').below(8 * NS_PER_MS);
  await hypervisor.runUntil(60 * NS_PER_MS + instant);
  return machine;
}

async function finish({ hypervisor, guest }: Machine): Promise<unknown> {
  const { vmm } = hypervisor;
  await hypervisor.runUntil(vmm.now + 2000 * NS_PER_MS);
  const { device } = vmm;
  return {
    now: vmm.now,
    balloon: [device.targetPages, device.actualPages, device.inflatedPages.count()],
    driver: guest.system.driver.numPages,
    violations: device.protocolViolations,
    problems: await hypervisor.verify(),
  };
}

describe('a guest that is moved while its device is at work', () => {
  test.each(Array.from({ length: 12 }, (_, seed) => seed))(
    'goes on as if it had stayed, seed %i',
    async (seed) => {
      const stays = await busyMachine(seed);
      await stays.hypervisor.migrate(MIGRATE);
      const moves = await busyMachine(seed);
      const { machine, report } = await moveToNewHost(moves, MIGRATE);
      expect([report.migration.status, report.memory.lost_pages]).toEqual(['completed', 0]);
      const found = await finish(machine);
      expect(found).toEqual(await finish(stays));
      expect(found).toMatchObject({ balloon: [6000, 6000, 6000], violations: 0, problems: [] });
      const stats = machine.hypervisor.balloon.guestStats();
      expect(machine.hypervisor.vmm.now - (stats.last_update_ns ?? 0)).toBeLessThan(5 * NS_PER_MS);
    },
  );
});

describe('a saved machine', () => {
  const spoil = (state: Record<string, unknown>, path: string, value: unknown): void => {
    const keys = path.split('.');
    const last = keys.pop()!;
    let at = state;
    for (const key of keys) at = at[key] as Record<string, unknown>;
    at[last] = value;
  };

  async function saved(): Promise<{ machine: Machine; states: readonly DeviceState[] }> {
    const machine = await busyMachine(1);
    const { vmm } = machine.hypervisor;
    vmm.running = false;
    await vmm.settle();
    return { machine, states: saveStates(vmm, { sourceLog: 'ab', isRunning: true }) };
  }

  function load({ hypervisor, guest }: Machine, states: readonly DeviceState[]): unknown {
    const { options } = hypervisor.vmm;
    const link = { exchange: async () => [], closed: Promise.resolve(null), close: async () => {} };
    expect(guest.facts.ramPages).toBe(options.ramPages);
    return loadStates(new Vmm(link, options, new EventLog()), states);
  }

  test('is taken up as it was', async () => {
    const { machine, states } = await saved();
    expect(load(machine, states)).toEqual({ sourceLog: 'ab', isRunning: true });
  });

  test.each([
    [
      'machine.device.hinting.status',
      9,
      'balloon.machine.device.hinting.status: expected an integer 0 … 3',
    ],
    ['machine.device.virtio.status', -1, 'virtio.status: expected an integer 0 … 255'],
    ['machine.device.target_pages', 2 ** 40, 'target_pages: expected an integer'],
    ['machine.device.inflated', 'AA==', 'inflated: expected 2048 bytes'],
    ['machine.device.virtio.queues.0.outstanding', 'AA==', 'outstanding: expected 128 bytes'],
    ['machine.device.virtio', null, 'virtio: expected an object with fields'],
    ['machine.now_ns', 1.5, 'now_ns: expected an integer'],
    ['machine.work', 'none', 'work: expected a list'],
    ['runs', 'yes', 'runs: expected true or false'],
  ])('with %s %o is refused in one line', async (path, value, message) => {
    const { machine, states } = await saved();
    const state = JSON.parse(Buffer.from(states[0]!.state).toString());
    spoil(state, path, value);
    const spoilt = [{ ...states[0]!, state: Buffer.from(JSON.stringify(state)) }];
    expect(() => load(machine, spoilt)).toThrow(message);
  });

  test.each([
    ['nothing', () => [], 'expected its state, found none'],
    [
      'another device',
      (one: DeviceState) => [{ ...one, device: 'disk' }],
      'disk: there is no such device',
    ],
    [
      'another version',
      (one: DeviceState) => [{ ...one, version: 2 }],
      'expected version 1, found 2',
    ],
    ['no JSON', (one: DeviceState) => [{ ...one, state: new Uint8Array([1]) }], 'expected JSON'],
  ] as const)('of %s is refused', async (_what, change, message) => {
    const { machine, states } = await saved();
    expect(() => load(machine, change(states[0]!))).toThrow(message);
  });
});

/** The driver of an unmodified kernel takes our device with whatever it offers. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  DEVICE_FEATURES,
  type DeviceConfig,
  type DeviceFeatureName,
  DeviceStatus,
  Feature,
} from '../../protocol/index.ts';
import { LinuxMachine, NO_INIT } from '../support/linux-machine.ts';

const POISON = `${NO_INIT} page_poison=1`;
const INIT_ON_FREE = `${NO_INIT} init_on_free=1`;
/** What this kernel's driver and virtio core know; VERSION_1 goes without saying. */
const KNOWN: readonly DeviceFeatureName[] = [
  'mustTellHost',
  'statsVq',
  'deflateOnOom',
  'freePageHint',
  'pagePoison',
  'pageReporting',
  'indirectDesc',
  'eventIdx',
  'ringPacked',
  'ringReset',
];
/** What the virtio core leaves set when its driver is gone. */
const ACKNOWLEDGED = 1 << DeviceStatus.ACKNOWLEDGE;

function subsets<T>(names: readonly T[]): T[][] {
  return Array.from({ length: 2 ** names.length }, (_, mask) =>
    names.filter((_name, i) => (mask & (1 << i)) !== 0),
  );
}

/** As virtballoon_validate leaves it: poison only if pages are filled, reporting then only with it. */
function accepted(offered: readonly DeviceFeatureName[], kernel: string): DeviceFeatureName[] {
  const fillsFreed = kernel !== NO_INIT;
  return offered.filter((name) => {
    if (name === 'pagePoison') return fillsFreed;
    if (name === 'pageReporting') return !fillsFreed || offered.includes('pagePoison');
    return KNOWN.includes(name);
  });
}

const ALL = ['statsVq', 'deflateOnOom', 'freePageHint', 'pageReporting'] as const;
const CASES: { kernel: string; offered: DeviceFeatureName[] }[] = [
  ...subsets<DeviceFeatureName>(ALL).map((offered) => ({ kernel: NO_INIT, offered })),
  { kernel: NO_INIT, offered: ['mustTellHost', 'pagePoison', ...ALL] },
  ...subsets<DeviceFeatureName>(['pagePoison', 'freePageHint', 'pageReporting']).map((offered) => ({
    kernel: POISON,
    offered: ['statsVq', ...offered] as DeviceFeatureName[],
  })),
  { kernel: INIT_ON_FREE, offered: ['pagePoison', ...ALL] },
  ...subsets<DeviceFeatureName>(['ringPacked', 'eventIdx']).map((rings) => ({
    kernel: NO_INIT,
    offered: [...ALL, ...rings, 'indirectDesc', 'inOrder', 'ringReset'] as DeviceFeatureName[],
  })),
];

describe.each([
  ['plain', NO_INIT],
  ['page_poison=1', POISON],
  ['init_on_free=1', INIT_ON_FREE],
])('a kernel booted %s', (_title, kernel) => {
  let machine: LinuxMachine;

  beforeAll(async () => {
    machine = await LinuxMachine.start({ kernelArguments: kernel });
  });
  afterAll(() => machine[Symbol.asyncDispose]());

  const cases = CASES.filter((one) => one.kernel === kernel);

  it.each(cases.map(({ offered }) => ({ offered, title: offered.join(', ') || 'nothing' })))(
    'binds a device that offers $title',
    async ({ offered }) => {
      machine.replaceDevice(deviceOf(offered));
      const { hypervisor } = machine;
      const { device } = hypervisor.vmm;
      expect(await machine.shell('bind')).toEqual([]);
      expect(await featuresOf(machine)).toEqual(bits(accepted(offered, kernel)));
      for (const target of [512, 100, 256]) {
        hypervisor.setBalloon(target);
        expect(await machine.until(() => device.actualPages === target)).toBe(true);
        expect(device.inflatedPages.count()).toBe(target);
      }
      expect(await machine.shell('unbind')).toEqual([]);
      expect(device.virtio.status).toBe(ACKNOWLEDGED);
      expect(device.protocolViolations).toBe(0);
      expect(await hypervisor.verify()).toEqual([]);
    },
  );
});

function deviceOf(offered: readonly DeviceFeatureName[]): DeviceConfig {
  const all = Object.keys(DEVICE_FEATURES).map((name) => [name, false] as const);
  const config: Record<string, boolean> = Object.fromEntries(all);
  for (const name of offered) config[name] = true;
  return config;
}

/** Bit numbers in the order of sysfs: what the driver accepted. */
async function featuresOf(machine: LinuxMachine): Promise<number[]> {
  const [text] = await machine.shell('cat /sys/bus/virtio/devices/virtio0/features');
  return [...(text ?? '')].flatMap((bit, i) => (bit === '1' ? [i] : []));
}

function bits(features: readonly DeviceFeatureName[]): number[] {
  return [...features.map((name) => DEVICE_FEATURES[name]), Feature.VERSION_1].sort(
    (a, b) => a - b,
  );
}

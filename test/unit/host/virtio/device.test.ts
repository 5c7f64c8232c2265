import { describe, expect, test } from 'vitest';
import { type DeviceModel, VirtioDevice } from '../../../../host/virtio/device.ts';
import {
  bit,
  DeviceStatus,
  Feature,
  featureMask,
  featureWords,
} from '../../../../protocol/index.ts';

const A = bit(DeviceStatus.ACKNOWLEDGE);
const D = bit(DeviceStatus.DRIVER);
const F = bit(DeviceStatus.FEATURES_OK);
const OK = bit(DeviceStatus.DRIVER_OK);
const NEEDS_RESET = bit(DeviceStatus.DEVICE_NEEDS_RESET);
const FAILED = bit(DeviceStatus.FAILED);
const OFFERED = featureMask(Feature.VERSION_1, 3);

function make() {
  const events: string[] = [];
  const model: DeviceModel = {
    deviceId: 5,
    offeredFeatures: OFFERED,
    maxQueueSizes: [128, 0, 1024],
    readConfig: () => Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
    writeConfig: (offset) => offset === 4,
    onReset: () => void events.push('reset'),
    onDriverOk: () => void events.push('driver ok'),
  };
  const device = new VirtioDevice(model, (generation) => void events.push(`config ${generation}`));
  const set = (status: number): void => void device.handle({ name: 'setStatus', status });
  const accept = (features = OFFERED): void =>
    void device.handle({ name: 'setDriverFeatures', ...featureWords(features) });
  const queue = { name: 'setQueue', index: 0, size: 64 } as const;
  const setQueue = (fields = {}): void =>
    void device.handle({ ...queue, desc_gpa: 4096, avail_gpa: 8192, used_gpa: 12288, ...fields });
  /** The legal sequence up to a status. */
  const bring = (status: number): void => {
    for (const one of [A, A | D]) if (one <= status) set(one);
    if (status & F) {
      accept();
      set(A | D | F);
    }
    if (status & OK) {
      setQueue();
      set(A | D | F | OK);
    }
  };
  return { device, events, set, accept, bring, setQueue };
}

describe('device status', () => {
  const steps: { from: number; to: number; result: number }[] = [
    { from: 0, to: A, result: A },
    { from: 0, to: D, result: 0 },
    { from: 0, to: A | D, result: A | D },
    { from: A, to: A | D | F | OK, result: A },
    { from: A | D, to: A | D | OK, result: A | D },
    { from: A | D | F, to: A | D | F | OK, result: A | D | F | OK },
    { from: A | D | F, to: A | D, result: A | D | F },
    { from: A | D | F | OK, to: A | D | F, result: A | D | F | OK },
    { from: A | D | F | OK, to: A | D | F | OK | FAILED, result: A | D | F | OK | FAILED },
    { from: A, to: A | 0x20, result: A },
    { from: A, to: A | bit(DeviceStatus.SUSPEND), result: A },
    { from: A | D, to: 0, result: 0 },
    { from: A | D | F | OK, to: 0, result: 0 },
  ];

  test.each(steps)('$from, driver writes $to: $result', ({ from, to, result }) => {
    const { device, bring, set } = make();
    bring(from);
    expect(device.status).toBe(from);
    set(to);
    expect(device.status).toBe(result);
    expect(device.violationCount).toBe(to === result ? 0 : 1);
  });

  // spec: 2.2.2-device-3
  test.each([
    { id: 'a feature that is not offered', features: OFFERED | featureMask(5) },
    { id: 'no VERSION_1', features: featureMask(3) },
  ])('FEATURES_OK stays clear for $id', ({ features }) => {
    const { device, set, accept } = make();
    set(A | D);
    accept(features);
    set(A | D | F);
    expect(device.handle({ name: 'getStatus' })).toEqual({ name: 'status', status: A | D });
    expect(device.negotiatedFeatures).toBe(0n);
  });

  test('features are final after FEATURES_OK', () => {
    const { device, bring, accept } = make();
    bring(A | D | F);
    accept(featureMask(Feature.VERSION_1));
    expect(device.negotiatedFeatures).toBe(OFFERED);
    expect(device.violationCount).toBe(1);
  });

  // spec: 2.4.1-device-1, 2.2.2-device-5
  test.each([0, A, A | D, A | D | F, A | D | F | OK])(
    'reset in %s forgets everything',
    (status) => {
      const { device, events, bring, set } = make();
      bring(status);
      device.setNeedsReset();
      set(0);
      expect(device.status).toBe(0);
      expect(device.negotiatedFeatures).toBe(0n);
      expect(device.queue(0)).toBeUndefined();
      expect(events.at(-1)).toBe('reset');
      bring(A | D | F | OK);
      expect(device.isLive).toBe(true);
    },
  );

  // spec: 2.1.2-device-3
  test('DEVICE_NEEDS_RESET stops the queues, notifies once, and only reset clears it', () => {
    const { device, events, bring, set } = make();
    bring(A | D | F | OK);
    device.setNeedsReset();
    device.setNeedsReset();
    expect(device.isLive).toBe(false);
    expect(events.filter((event) => event.startsWith('config'))).toEqual(['config 1']);
    set(A | D | F | OK);
    expect(device.status).toBe(A | D | F | OK | NEEDS_RESET);
    expect(device.violationCount).toBe(0);
  });
});

describe('configuration space', () => {
  test.each([
    { offset: 0, length: 8, data: [1, 2, 3, 4, 5, 6, 7, 8] },
    { offset: 4, length: 4, data: [5, 6, 7, 8] },
    { offset: 4, length: 5, data: [] },
    { offset: 8, length: 1, data: [] },
    { offset: 0, length: 0, data: [] },
    { offset: 0xffff_ffff, length: 0xffff_ffff, data: [] },
  ])('read $length at $offset', ({ offset, length, data }) => {
    const { device } = make();
    const reply = device.handle({ name: 'getConfig', offset, length });
    expect(reply).toEqual({ name: 'config', generation: 0, data: Uint8Array.from(data) });
    expect(device.violationCount).toBe(data.length === 0 ? 1 : 0);
  });

  test('a change moves the generation, and is notified only to a ready driver', () => {
    const { device, events, bring } = make();
    device.configChanged();
    expect(events).toEqual([]);
    bring(A | D | F | OK);
    device.configChanged();
    expect(events).toEqual(['driver ok', 'config 2']);
  });

  test('a refused write is a violation, and so is one before DRIVER', () => {
    const { device, bring } = make();
    const write = (offset: number): void =>
      void device.handle({ name: 'setConfig', offset, data: new Uint8Array(4) });
    write(4);
    expect(device.violationCount).toBe(1);
    bring(A | D);
    write(4);
    expect(device.violationCount).toBe(1);
    write(0);
    expect(device.violationCount).toBe(2);
  });
});

describe('queues', () => {
  test.each([
    { index: 0, max_size: 128 },
    { index: 1, max_size: 0 },
    { index: 3, max_size: 0 },
    { index: 65535, max_size: 0 },
  ])('queue $index has $max_size descriptors', ({ index, max_size }) => {
    const { device } = make();
    const reply = { name: 'queue', index, max_size, enabled: false };
    expect(device.handle({ name: 'getQueue', index })).toEqual(reply);
  });

  test.each([
    { id: 'no power of two', fields: { size: 63 } },
    { id: 'empty', fields: { size: 0 } },
    { id: 'above the maximum', fields: { size: 256 } },
    { id: 'no such queue', fields: { index: 1 } },
    { id: 'misaligned descriptors', fields: { desc_gpa: 4104 } },
    { id: 'misaligned avail', fields: { avail_gpa: 8193 } },
    { id: 'misaligned used', fields: { used_gpa: 12290 } },
  ])('set-up is refused: $id', ({ fields }) => {
    const { device, bring, setQueue } = make();
    bring(A | D | F);
    setQueue(fields);
    expect(device.queue(0)).toBeUndefined();
    expect(device.queue(1)).toBeUndefined();
    expect(device.violationCount).toBe(1);
  });

  test.each([A | D, A | D | F | OK])('set-up in status %s is refused', (status) => {
    const { device, bring, setQueue } = make();
    bring(status);
    const before = device.queue(0);
    setQueue({ size: 32 });
    expect(device.queue(0)).toBe(before);
    expect(device.violationCount).toBe(1);
  });
});

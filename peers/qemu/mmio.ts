/** virtio-mmio version 2 (virtio 1.4 §4.2.2) on QEMU's microvm. */
import type { QueueAreas } from '../../guest/virtio/queue.ts';
import { DeviceId, type FeatureSet, featuresOf, featureWords } from '../../protocol/index.ts';
import type { QtestClient } from './qtest.ts';
import {
  type QueueState,
  readSpace,
  type VirtioRegisters,
  write64,
  writeSpace,
} from './registers.ts';

/** hw/i386/microvm.c: 24 slots; the first device takes the last one. */
const SLOT_BASE = 0xfeb00000;
const SLOT_BYTES = 0x200;
const SLOT_COUNT = 24;
const MAGIC = 0x74726976;
const VERSION = 2;

const Register = {
  MagicValue: 0x000,
  Version: 0x004,
  DeviceID: 0x008,
  DeviceFeatures: 0x010,
  DeviceFeaturesSel: 0x014,
  DriverFeatures: 0x020,
  DriverFeaturesSel: 0x024,
  QueueSel: 0x030,
  QueueSizeMax: 0x034,
  QueueSize: 0x038,
  QueueReady: 0x044,
  QueueNotify: 0x050,
  InterruptStatus: 0x060,
  InterruptACK: 0x064,
  Status: 0x070,
  QueueDescLow: 0x080,
  QueueDescHigh: 0x084,
  QueueDriverLow: 0x090,
  QueueDriverHigh: 0x094,
  QueueDeviceLow: 0x0a0,
  QueueDeviceHigh: 0x0a4,
  QueueReset: 0x0c0,
  ConfigGeneration: 0x0fc,
  Config: 0x100,
} as const;

export class MmioRegisters implements VirtioRegisters {
  readonly name = 'virtio-mmio';
  readonly qtest: QtestClient;
  #base = 0;

  constructor(qtest: QtestClient) {
    this.qtest = qtest;
  }

  async setup(): Promise<void> {
    for (let slot = SLOT_COUNT - 1; slot >= 0; slot--) {
      this.#base = SLOT_BASE + slot * SLOT_BYTES;
      const [magic, version, deviceId] = await Promise.all([
        this.#read(Register.MagicValue),
        this.#read(Register.Version),
        this.#read(Register.DeviceID),
      ]);
      if (magic === MAGIC && version === VERSION && deviceId === DeviceId.BALLOON) return;
    }
    throw new Error('no slot of virtio-mmio holds a modern balloon device');
  }

  deviceId(): Promise<number> {
    return this.#read(Register.DeviceID);
  }

  async deviceFeatures(): Promise<FeatureSet> {
    this.#write(Register.DeviceFeaturesSel, 0);
    const low = this.#read(Register.DeviceFeatures);
    this.#write(Register.DeviceFeaturesSel, 1);
    const high = this.#read(Register.DeviceFeatures);
    return featuresOf({ low: await low, high: await high });
  }

  driverFeatures(features: FeatureSet): void {
    const { low, high } = featureWords(features);
    this.#write(Register.DriverFeaturesSel, 0);
    this.#write(Register.DriverFeatures, low);
    this.#write(Register.DriverFeaturesSel, 1);
    this.#write(Register.DriverFeatures, high);
  }

  status(): Promise<number> {
    return this.#read(Register.Status);
  }

  setStatus(status: number): void {
    this.#write(Register.Status, status);
  }

  configGeneration(): Promise<number> {
    return this.#read(Register.ConfigGeneration);
  }

  readConfig(offset: number, lengthBytes: number): Promise<Uint8Array> {
    return readSpace(this.qtest, this.#base + Register.Config, offset, lengthBytes);
  }

  writeConfig(offset: number, data: Uint8Array): void {
    writeSpace(this.qtest, this.#base + Register.Config, offset, data);
  }

  async queue(index: number): Promise<QueueState> {
    this.#write(Register.QueueSel, index);
    const maxSize = this.#read(Register.QueueSizeMax);
    const ready = this.#read(Register.QueueReady);
    return { maxSize: await maxSize, enabled: (await ready) !== 0 };
  }

  setQueue(index: number, size: number, areas: QueueAreas): void {
    this.#write(Register.QueueSel, index);
    this.#write(Register.QueueSize, size);
    const { QueueDescLow, QueueDescHigh, QueueDriverLow, QueueDriverHigh } = Register;
    const { QueueDeviceLow, QueueDeviceHigh } = Register;
    this.#write64(QueueDescLow, QueueDescHigh, areas.descGpa);
    this.#write64(QueueDriverLow, QueueDriverHigh, areas.driverGpa);
    this.#write64(QueueDeviceLow, QueueDeviceHigh, areas.deviceGpa);
    this.#write(Register.QueueReady, 1);
  }

  resetQueue(index: number): void {
    this.#write(Register.QueueSel, index);
    this.#write(Register.QueueReset, 1);
  }

  notify(index: number): void {
    this.#write(Register.QueueNotify, index);
  }

  async takeInterrupts(): Promise<number> {
    const status = await this.#read(Register.InterruptStatus);
    if (status !== 0) this.#write(Register.InterruptACK, status);
    return status;
  }

  #read(register: number): Promise<number> {
    return this.qtest.read32(this.#base + register);
  }

  #write(register: number, value: number): void {
    this.qtest.write32(this.#base + register, value);
  }

  #write64(low: number, high: number, value: number): void {
    write64(this.qtest, this.#base + low, this.#base + high, value);
  }
}

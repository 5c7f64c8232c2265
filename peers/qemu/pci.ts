/** virtio-pci, modern (virtio 1.4 §4.1), on QEMU's pc: no firmware has run, so we place its BAR. */
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

const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;
const VENDOR_ID = 0x1af4;
/** Transitional, and modern: 0x1040 plus the device id. */
const DEVICE_IDS: readonly number[] = [0x1002, 0x1040 + DeviceId.BALLOON];
const COMMAND = 0x04;
const COMMAND_MEMORY_AND_MASTER = 0x6;
const BAR0 = 0x10;
const CAPABILITY_LIST = 0x34;
const CAP_ID_VENDOR = 0x09;
/** In the hole that pc keeps for PCI below 4 GiB. */
const BAR_GPA = 0xe000_0000;

/** virtio_pci_cap.cfg_type */
const CapType = { COMMON: 1, NOTIFY: 2, ISR: 3, DEVICE: 4 } as const;

/** struct virtio_pci_common_cfg */
const Common = {
  device_feature_select: 0x00,
  device_feature: 0x04,
  driver_feature_select: 0x08,
  driver_feature: 0x0c,
  device_status: 0x14,
  config_generation: 0x15,
  queue_select: 0x16,
  queue_size: 0x18,
  queue_enable: 0x1c,
  queue_notify_off: 0x1e,
  queue_desc: 0x20,
  queue_driver: 0x28,
  queue_device: 0x30,
  queue_reset: 0x3a,
} as const;

export class PciRegisters implements VirtioRegisters {
  readonly name = 'virtio-pci';
  readonly qtest: QtestClient;
  #slot = 0;
  /** Addresses of the structures by CapType. */
  readonly #structures = new Map<number, number>();
  #notifyMultiplier = 0;
  readonly #notifyOffsets: number[] = [];

  constructor(qtest: QtestClient) {
    this.qtest = qtest;
  }

  async setup(): Promise<void> {
    await this.#findSlot();
    const bar = await this.#walkCapabilities();
    await this.#pciWrite32(BAR0 + bar * 4, BAR_GPA);
    await this.#pciWrite32(BAR0 + bar * 4 + 4, 0);
    await this.#pciWrite32(COMMAND, COMMAND_MEMORY_AND_MASTER);
    // Fixed for each queue, so that a kick needs no read.
    for (let index = 0; index < 8; index++) {
      this.#write16(Common.queue_select, index);
      this.#notifyOffsets.push(await this.#read16(Common.queue_notify_off));
    }
  }

  async deviceId(): Promise<number> {
    const id = (await this.#pciRead32(0)) >>> 16;
    return DEVICE_IDS.includes(id) ? DeviceId.BALLOON : 0;
  }

  async deviceFeatures(): Promise<FeatureSet> {
    this.#write32(Common.device_feature_select, 0);
    const low = this.#read32(Common.device_feature);
    this.#write32(Common.device_feature_select, 1);
    const high = this.#read32(Common.device_feature);
    return featuresOf({ low: await low, high: await high });
  }

  driverFeatures(features: FeatureSet): void {
    const { low, high } = featureWords(features);
    this.#write32(Common.driver_feature_select, 0);
    this.#write32(Common.driver_feature, low);
    this.#write32(Common.driver_feature_select, 1);
    this.#write32(Common.driver_feature, high);
  }

  status(): Promise<number> {
    return this.qtest.read8(this.#common + Common.device_status);
  }

  setStatus(status: number): void {
    this.qtest.write8(this.#common + Common.device_status, status);
  }

  configGeneration(): Promise<number> {
    return this.qtest.read8(this.#common + Common.config_generation);
  }

  readConfig(offset: number, lengthBytes: number): Promise<Uint8Array> {
    return readSpace(this.qtest, this.#at(CapType.DEVICE), offset, lengthBytes);
  }

  writeConfig(offset: number, data: Uint8Array): void {
    writeSpace(this.qtest, this.#at(CapType.DEVICE), offset, data);
  }

  async queue(index: number): Promise<QueueState> {
    this.#write16(Common.queue_select, index);
    const maxSize = this.#read16(Common.queue_size);
    const enabled = this.#read16(Common.queue_enable);
    return { maxSize: await maxSize, enabled: (await enabled) !== 0 };
  }

  setQueue(index: number, size: number, areas: QueueAreas): void {
    this.#write16(Common.queue_select, index);
    this.#write16(Common.queue_size, size);
    this.#write64(Common.queue_desc, areas.descGpa);
    this.#write64(Common.queue_driver, areas.driverGpa);
    this.#write64(Common.queue_device, areas.deviceGpa);
    this.#write16(Common.queue_enable, 1);
  }

  resetQueue(index: number): void {
    this.#write16(Common.queue_select, index);
    this.#write16(Common.queue_reset, 1);
  }

  notify(index: number): void {
    const offset = (this.#notifyOffsets[index] ?? index) * this.#notifyMultiplier;
    this.qtest.write16(this.#at(CapType.NOTIFY) + offset, index);
  }

  /** Reading acknowledges. */
  takeInterrupts(): Promise<number> {
    return this.qtest.read8(this.#at(CapType.ISR));
  }

  get #common(): number {
    return this.#at(CapType.COMMON);
  }

  #at(type: number): number {
    return this.#structures.get(type) ?? 0;
  }

  async #findSlot(): Promise<void> {
    for (this.#slot = 0; this.#slot < 32; this.#slot++) {
      const id = await this.#pciRead32(0);
      if ((id & 0xffff) === VENDOR_ID && DEVICE_IDS.includes(id >>> 16)) return;
    }
    throw new Error('no slot of PCI bus 0 holds a balloon device');
  }

  /** Where each structure lies, once its BAR is at BAR_GPA. Returns the BAR that holds them. */
  async #walkCapabilities(): Promise<number> {
    let bar = 0;
    let at = (await this.#pciRead32(CAPABILITY_LIST)) & 0xfc;
    for (let seen = 0; at !== 0 && seen < 48; seen++) {
      const header = await this.#pciRead32(at);
      const type = header >>> 24;
      if ((header & 0xff) === CAP_ID_VENDOR && type >= CapType.COMMON && type <= CapType.DEVICE) {
        bar = (await this.#pciRead32(at + 4)) & 0xff;
        this.#structures.set(type, BAR_GPA + (await this.#pciRead32(at + 8)));
        if (type === CapType.NOTIFY) this.#notifyMultiplier = await this.#pciRead32(at + 16);
      }
      at = (header >>> 8) & 0xfc;
    }
    if (this.#structures.size < 4) throw new Error('the balloon device is not a modern one');
    return bar;
  }

  async #pciRead32(register: number): Promise<number> {
    this.qtest.post(`outl ${CONFIG_ADDRESS} ${this.#address(register)}`);
    return Number(await this.qtest.ask(`inl ${CONFIG_DATA}`));
  }

  async #pciWrite32(register: number, value: number): Promise<void> {
    this.qtest.post(`outl ${CONFIG_ADDRESS} ${this.#address(register)}`);
    await this.qtest.ask(`outl ${CONFIG_DATA} ${value}`);
  }

  #address(register: number): number {
    return 0x8000_0000 + this.#slot * 0x800 + register;
  }

  #read16(register: number): Promise<number> {
    return this.qtest.read16(this.#common + register);
  }

  #read32(register: number): Promise<number> {
    return this.qtest.read32(this.#common + register);
  }

  #write16(register: number, value: number): void {
    this.qtest.write16(this.#common + register, value);
  }

  #write32(register: number, value: number): void {
    this.qtest.write32(this.#common + register, value);
  }

  #write64(register: number, value: number): void {
    write64(this.qtest, this.#common + register, this.#common + register + 4, value);
  }
}

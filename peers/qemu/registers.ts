/**
 * The register file of a virtio transport, seen by a driver that reaches it over qtest. Writes are
 * posted and take effect in order; reads see every write before them.
 */
import type { QueueAreas } from '../../guest/virtio/queue.ts';
import type { FeatureSet } from '../../protocol/index.ts';
import type { QtestClient } from './qtest.ts';

/** Bits of the interrupt status, the same on MMIO and PCI. */
export const Isr = { QUEUE: 1, CONFIG: 2 } as const;

export interface QueueState {
  /** 0: there is no such queue. */
  readonly maxSize: number;
  readonly enabled: boolean;
}

export interface VirtioRegisters {
  readonly qtest: QtestClient;
  readonly name: 'virtio-mmio' | 'virtio-pci';
  /** Find the device and make it answer. @throws Error if there is none. */
  setup(): Promise<void>;
  deviceId(): Promise<number>;
  deviceFeatures(): Promise<FeatureSet>;
  driverFeatures(features: FeatureSet): void;
  status(): Promise<number>;
  setStatus(status: number): void;
  configGeneration(): Promise<number>;
  /** In accesses of the widths that the fields have: four bytes where it is aligned, else one. */
  readConfig(offset: number, lengthBytes: number): Promise<Uint8Array>;
  writeConfig(offset: number, data: Uint8Array): void;
  queue(index: number): Promise<QueueState>;
  setQueue(index: number, size: number, areas: QueueAreas): void;
  resetQueue(index: number): void;
  notify(index: number): void;
  /** The interrupt status, acknowledged by this. */
  takeInterrupts(): Promise<number>;
}

/** Shared by both: a configuration space that lies in memory from `base` on. */
export async function readSpace(
  qtest: QtestClient,
  base: number,
  offset: number,
  lengthBytes: number,
): Promise<Uint8Array> {
  const out = new Uint8Array(lengthBytes);
  const view = new DataView(out.buffer);
  const reads: Promise<void>[] = [];
  for (let at = 0; at < lengthBytes; ) {
    const [here, gpa] = [at, base + offset + at];
    if ((offset + at) % 4 === 0 && lengthBytes - at >= 4) {
      reads.push(qtest.read32(gpa).then((value) => view.setUint32(here, value, true)));
      at += 4;
    } else {
      reads.push(qtest.read8(gpa).then((value) => view.setUint8(here, value)));
      at++;
    }
  }
  await Promise.all(reads);
  return out;
}

export function writeSpace(
  qtest: QtestClient,
  base: number,
  offset: number,
  data: Uint8Array,
): void {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  for (let at = 0; at < data.length; ) {
    const gpa = base + offset + at;
    if ((offset + at) % 4 === 0 && data.length - at >= 4) {
      qtest.write32(gpa, view.getUint32(at, true));
      at += 4;
    } else {
      qtest.write8(gpa, view.getUint8(at));
      at++;
    }
  }
}

/** Both halves of a 64-bit field of two registers. */
export function write64(qtest: QtestClient, low: number, high: number, value: number): void {
  qtest.write32(low, value % 2 ** 32);
  qtest.write32(high, Math.floor(value / 2 ** 32));
}

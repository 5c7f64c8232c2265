/** Both hands on one ring in emulated memory, of either layout. */
import { Ram } from '../../guest/machine/ram.ts';
import { createDeviceRing } from '../../guest/virtio/device-ring.ts';
import { PackedQueue } from '../../guest/virtio/packed-queue.ts';
import type { DeviceRing, DriverQueue } from '../../guest/virtio/queue.ts';
import { ringOptions } from '../../guest/virtio/ring-features.ts';
import { SplitQueue } from '../../guest/virtio/split-queue.ts';
import {
  Feature,
  type FeatureSet,
  featureMask,
  type Message,
  toFloat64,
  toUint16,
  toUint32,
} from '../../protocol/index.ts';
import { PAGE_SIZE_BYTES } from '../../shared/index.ts';

export const LAYOUTS = ['split', 'packed'] as const;
export type Layout = (typeof LAYOUTS)[number];

export const RING_PFN = 16;
export const DATA_PFN = 192;
export const DATA_GPA = DATA_PFN * PAGE_SIZE_BYTES;
export const DATA_PAGES = 16;

export interface RigOptions {
  readonly layout: Layout;
  readonly size: number;
  /** Bit numbers of ring features besides the layout's. */
  readonly features?: readonly number[];
}

/** One chain as the device sees it. */
export interface TakenChain {
  readonly head: number;
  readonly atNs: number;
  readonly out: readonly number[];
  readonly in: readonly (readonly [gpa: number, lengthBytes: number])[];
}

export class RingRig {
  readonly ram = new Ram(256);
  /** Live bytes from DATA_GPA on. */
  readonly data: Uint8Array;
  readonly features: FeatureSet;
  readonly queue: DriverQueue & { readonly view: DataView };
  ring: DeviceRing;

  constructor({ layout, size, features = [] }: RigOptions) {
    this.data = this.ram.bytesOf(DATA_PFN, DATA_PAGES);
    const isPacked = layout === 'packed';
    this.features = featureMask(...features, ...(isPacked ? [Feature.RING_PACKED] : []));
    const options = ringOptions(this.features);
    const Queue = isPacked ? PackedQueue : SplitQueue;
    const pageCount = Math.ceil(Queue.sizeBytes(size, options) / PAGE_SIZE_BYTES);
    const place = { memory: this.ram, pfn: RING_PFN, pageCount };
    this.queue = new Queue(0, size, options, place);
    this.ring = this.newRing();
  }

  /** Another hand of a device on the same ring, which knows nothing of the first one. */
  newRing(): DeviceRing {
    const { index, size, areas } = this.queue;
    return createDeviceRing({ index, size, areas }, this.features, this.ram);
  }

  /** What the device takes now. */
  take(now = 0): TakenChain[] {
    const chains: TakenChain[] = [];
    this.ring.take(now);
    for (let message = this.ring.drain(); message; message = this.ring.drain()) {
      chains.push(...chainsOf(message));
    }
    return chains;
  }

  /** Complete these heads as the host would. Returns how many were none of the device's. */
  complete(heads: readonly number[], writtenBytes: readonly number[] = heads.map(() => 0)): number {
    return this.ring.complete(
      new Uint8Array(Uint16Array.from(heads).buffer),
      new Uint8Array(Uint32Array.from(writtenBytes).buffer),
    );
  }
}

export function chainsOf(message: Message<'avail'>): TakenChain[] {
  const heads = toUint16(message.heads)!;
  const atNs = toFloat64(message.at_ns)!;
  const outBytes = toUint32(message.out_bytes)!;
  const inCount = toUint16(message.in_count)!;
  const inGpa = toFloat64(message.in_gpa)!;
  const inBytes = toUint32(message.in_bytes)!;
  let outAt = 0;
  let inAt = 0;
  return Array.from(heads, (head, i) => {
    const out = [...message.out.subarray(outAt, outAt + outBytes[i]!)];
    const segments = Array.from(
      { length: inCount[i]! },
      (_, k) => [inGpa[inAt + k]!, inBytes[inAt + k]!] as const,
    );
    outAt += outBytes[i]!;
    inAt += inCount[i]!;
    return { head, atNs: atNs[i]!, out, in: segments };
  });
}

/** A balloon device alone on a bench: messages in, messages out, and a clock that a test turns. */
import { BALLOON_DEVICE_DEFAULTS, BalloonDevice } from '../../host/balloon/device.ts';
import type { BalloonDeviceOptions } from '../../host/balloon/options.ts';
import { deviceOptionsOf } from '../../host/balloon/profiles.ts';
import {
  type BalloonQueueName,
  BalloonStat,
  bit,
  type DeviceConfig,
  DeviceStatus,
  type FeatureSet,
  f64Bytes,
  featuresOf,
  featureWords,
  type Message,
  queueIndices,
  toUint16,
  toUint32,
  u16Bytes,
  u32Bytes,
} from '../../protocol/index.ts';
import { DEFAULT_COSTS, EventQueue, PAGE_SIZE_BYTES } from '../../shared/index.ts';

export interface ChainSketch {
  readonly head?: number;
  readonly out?: Uint8Array;
  readonly in?: readonly (readonly [gpa: number, bytes: number])[];
}

/** Each chain under the head of its place in the list, unless it names one. */
export function avail(queue: number, chains: readonly ChainSketch[]): Message<'avail'> {
  const segments = chains.flatMap((chain) => chain.in ?? []);
  return {
    name: 'avail',
    queue,
    heads: u16Bytes(Uint16Array.from(chains, (chain, i) => chain.head ?? i)),
    at_ns: f64Bytes(Float64Array.from(chains, () => 7)),
    out_bytes: u32Bytes(Uint32Array.from(chains, (chain) => chain.out?.length ?? 0)),
    out: Uint8Array.from(chains.flatMap((chain) => [...(chain.out ?? [])])),
    in_count: u16Bytes(Uint16Array.from(chains, (chain) => chain.in?.length ?? 0)),
    in_gpa: f64Bytes(Float64Array.from(segments, ([gpa]) => gpa)),
    in_bytes: u32Bytes(Uint32Array.from(segments, ([, bytes]) => bytes)),
  };
}

/** A buffer of le32: PFNs, or one command id. */
export const words = (...list: number[]): Uint8Array => u32Bytes(Uint32Array.from(list));

/** A statistics buffer. */
export function statistics(entries: readonly (readonly [tag: number, val: bigint])[]): Uint8Array {
  const bytes = new Uint8Array(entries.length * BalloonStat.sizeBytes);
  const view = new DataView(bytes.buffer);
  for (const [i, [tag, val]] of entries.entries()) {
    BalloonStat.write(view, i * BalloonStat.sizeBytes, { tag, val });
  }
  return bytes;
}

/** A chain of writable ranges of whole pages. */
export const ranges = (
  ...list: readonly (readonly [pfn: number, pages: number])[]
): ChainSketch => ({
  in: list.map(([pfn, pages]) => [pfn * PAGE_SIZE_BYTES, pages * PAGE_SIZE_BYTES] as const),
});

const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = DeviceStatus;
export const A = bit(ACKNOWLEDGE);
export const AD = A | bit(DRIVER);
export const ADF = AD | bit(FEATURES_OK);
export const READY = ADF | bit(DRIVER_OK);

export class DeviceBench {
  readonly device: BalloonDevice;
  readonly options: BalloonDeviceOptions;
  readonly posted: Message[] = [];
  readonly hints: [firstPfn: number, pageCount: number][] = [];
  readonly actual: number[] = [];
  now = 0;
  inhibited = false;
  /** Timers that the device has asked for. */
  timerCount = 0;
  readonly #timers = new EventQueue<() => void>();

  constructor(config: DeviceConfig = {}, ramPages = 1024) {
    this.options = {
      ...BALLOON_DEVICE_DEFAULTS,
      ...deviceOptionsOf(config),
      ramPages,
      costs: DEFAULT_COSTS,
    };
    this.device = new BalloonDevice(this.options, {
      post: (message) => void this.posted.push(message),
      onHint: (firstPfn, pageCount) => void this.hints.push([firstPfn, pageCount]),
      onActual: (pages) => void this.actual.push(pages),
      discardInhibited: () => this.inhibited,
      now: () => this.now,
      after: (delayNs, action) => {
        this.timerCount++;
        this.#timers.schedule(this.now + delayNs, action);
      },
    });
  }

  get offered(): FeatureSet {
    return featuresOf(this.handle({ name: 'getDeviceFeatures' }) as Message<'deviceFeatures'>);
  }

  handle(message: Message): Message | null {
    return this.device.handle(message);
  }

  set status(status: number) {
    this.handle({ name: 'setStatus', status });
  }

  get status(): number {
    return (this.handle({ name: 'getStatus' }) as Message<'status'>).status;
  }

  /** Up to FEATURES_OK; all that is offered by default. */
  negotiate(features: FeatureSet = this.offered): this {
    this.status = A;
    this.status = AD;
    this.handle({ name: 'setDriverFeatures', ...featureWords(features) });
    this.status = ADF;
    return this;
  }

  /** The whole initialisation, with every queue that there is. */
  boot(features: FeatureSet = this.offered): this {
    this.negotiate(features);
    const { queue_count } = this.handle({ name: 'getDeviceInfo' }) as Message<'deviceInfo'>;
    for (let index = 0; index < queue_count; index++) this.setQueue(index);
    this.status = READY;
    return this;
  }

  reset(): void {
    this.status = 0;
  }

  maxSize(index: number): number {
    return (this.handle({ name: 'getQueue', index }) as Message<'queue'>).max_size;
  }

  setQueue(index: number, size = this.maxSize(index)): void {
    if (size === 0) return;
    const at = { desc_gpa: 4096, avail_gpa: 8192, used_gpa: 12288 };
    this.handle({ name: 'setQueue', index, size, ...at });
  }

  index(queue: BalloonQueueName): number {
    const negotiated = this.device.virtio.negotiatedFeatures;
    const index = queueIndices(this.options.numbering, this.offered, negotiated)[queue];
    if (index === null) throw new RangeError(`there is no ${queue}`);
    return index;
  }

  /** What was used: heads and lengths. */
  used(
    queue: BalloonQueueName | number,
    ...chains: ChainSketch[]
  ): [head: number, bytes: number][] {
    const index = typeof queue === 'number' ? queue : this.index(queue);
    return this.device.handleAvail(avail(index, chains)).used.flatMap(usedOf);
  }

  /** Heads that were used. */
  send(queue: BalloonQueueName | number, ...chains: ChainSketch[]): number[] {
    return this.used(queue, ...chains).map(([head]) => head);
  }

  /** Pairs of first frame and page count, of every discard so far. */
  get discarded(): number[] {
    return this.posted.flatMap((one) => (one.name === 'discard' ? [...toUint32(one.ranges)!] : []));
  }

  /** Heads that the device used unasked. */
  get postedHeads(): number[] {
    return this.posted.flatMap((one) => usedOf(one).map(([head]) => head));
  }

  get configChanges(): number {
    return this.posted.filter(({ name }) => name === 'configChanged').length;
  }

  config(offset: number, length = 4): Uint8Array {
    return (this.handle({ name: 'getConfig', offset, length }) as Message<'config'>).data;
  }

  read(offset: number): number {
    const data = this.config(offset);
    return new DataView(data.buffer, data.byteOffset, data.byteLength).getUint32(0, true);
  }

  write(offset: number, value: number): void {
    this.handle({ name: 'setConfig', offset, data: words(value) });
  }

  runFor(ns: number): void {
    const until = this.now + ns;
    while (this.#timers.nextAt <= until) {
      const timer = this.#timers.take()!;
      this.now = timer.at;
      timer.value();
    }
    this.now = until;
  }
}

function usedOf(message: Message): [head: number, bytes: number][] {
  if (message.name !== 'used') return [];
  const lengths = toUint32(message.written_bytes)!;
  return [...toUint16(message.heads)!].map((head, i) => [head, lengths[i]!]);
}

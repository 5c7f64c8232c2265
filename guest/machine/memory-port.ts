/** The memory group of the channel: what a VMM does through its mapping of guest RAM and its dirty log. */
import { type Message, toUint32, u32Bytes } from '../../protocol/index.ts';
import { BallastError, type Pfn } from '../../shared/index.ts';
import type { Ram } from './ram.ts';

export class MemoryPort {
  readonly #ram: Ram;

  constructor(ram: Ram) {
    this.#ram = ram;
  }

  /** The reply, null for a posted message, undefined for one of another group. */
  handle(message: Message): Message | null | undefined {
    const ram = this.#ram;
    switch (message.name) {
      case 'read':
        return { name: 'records', data: this.#read(rangesOf(message.ranges, ram.pageCount)) };
      case 'write':
        this.#write(rangesOf(message.ranges, ram.pageCount), message.data);
        return null;
      case 'loadRam':
        this.#load(message);
        return null;
      case 'discard':
        forEachRange(rangesOf(message.ranges, ram.pageCount), (pfn, n) => ram.discard(pfn, n));
        return null;
      case 'limitDirtyRate':
        ram.dirtyLog.limitPagesPerS = message.pages_per_s;
        return null;
      case 'dirtyLogEnable':
        ram.dirtyLog.enable(message.enabled, {
          initiallySet: message.initially_set,
          ringEntries: message.ring_entries,
        });
        return null;
      case 'getDirtyLog':
        return { name: 'dirtyLog', bits: ram.dirtyLog.take(message.clear).bytes };
      case 'clearDirtyLog':
        if (!ram.dirtyLog.clear(message.first_pfn, message.bits)) {
          throw new BallastError('MESSAGE_INVALID', 'clearDirtyLog: expected a piece of the log');
        }
        return null;
      default:
        return undefined;
    }
  }

  #read(ranges: Uint32Array): Uint8Array {
    let total = 0;
    forEachRange(ranges, (_pfn, pageCount) => {
      total += pageCount;
    });
    const tags = new Uint32Array(total);
    let at = 0;
    forEachRange(ranges, (pfn, pageCount) => {
      tags.set(this.#ram.tags.subarray(pfn, pfn + pageCount), at);
      at += pageCount;
    });
    return u32Bytes(tags);
  }

  #load({ first_pfn: first, backed, data }: Message<'loadRam'>): void {
    const ram = this.#ram;
    const tags = toUint32(data);
    const count = tags?.length ?? 0;
    if (!tags || first % 32 !== 0 || first + count > ram.pageCount || backed.length * 8 < count) {
      throw new BallastError(
        'MESSAGE_INVALID',
        `loadRam: expected records and a bit each for frames below ${ram.pageCount}, found ${first}+${count}`,
      );
    }
    for (let i = 0; i < count; i++) {
      ram.load(first + i, tags[i]!, (backed[i >>> 3]! & (1 << (i & 7))) !== 0);
    }
  }

  #write(ranges: Uint32Array, data: Uint8Array): void {
    const tags = toUint32(data) ?? new Uint32Array();
    let at = 0;
    forEachRange(ranges, (pfn, pageCount) => {
      for (let i = 0; i < pageCount && at < tags.length; i++) {
        this.#ram.setRecord(pfn + i, tags[at++]!);
      }
    });
  }
}

/** Pairs of (first frame, count), inside RAM and together no more than it. */
export function rangesOf(bytes: Uint8Array, pageCount: number): Uint32Array {
  const ranges = toUint32(bytes);
  if (!ranges || ranges.length % 2 !== 0) {
    throw new BallastError('MESSAGE_INVALID', 'ranges: expected pairs of first frame and count');
  }
  let total = 0;
  for (let i = 0; i < ranges.length; i += 2) {
    const end = ranges[i]! + ranges[i + 1]!;
    total += ranges[i + 1]!;
    if (end > pageCount || total > pageCount) {
      throw new BallastError(
        'MESSAGE_INVALID',
        `ranges: expected frames below ${pageCount}, each once at most, found ${ranges[i]}+${ranges[i + 1]}`,
      );
    }
  }
  return ranges;
}

function forEachRange(ranges: Uint32Array, visit: (pfn: Pfn, pageCount: number) => void): void {
  for (let i = 0; i < ranges.length; i += 2) visit(ranges[i]!, ranges[i + 1]!);
}

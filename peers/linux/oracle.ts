/**
 * The oracle group for a real kernel: which pages nobody uses. Those of its page allocator are read
 * in its memory map; those that its balloon driver holds for hinting are known from the chains.
 */
import { createHash } from 'node:crypto';
import { type Message, toFloat64, toUint16, toUint32, u32Bytes } from '../../protocol/index.ts';
import { BallastError, Bitmap, gpaToPfn, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import {
  findMemoryMap,
  freePages,
  isHeldBlock,
  type MemoryMap,
  offlinePages,
} from './page-flags.ts';
import type { X86Machine } from './x86-machine.ts';

/** A command on the hinting queue. */
const COMMAND_BYTES = 4;

export class LinuxOracle {
  readonly #machine: Pick<X86Machine, 'memory' | 'memoryBytes' | 'consoleText'>;
  readonly #statistics: () => Readonly<Record<string, number>>;
  readonly #onHint: (firstPfn: number, pageCount: number) => void;
  readonly #trustsFreePages: boolean;
  #map: MemoryMap | null = null;
  /** Blocks hinted and not yet seen in other hands, by first frame. */
  readonly #held = new Map<number, number>();
  /** Queues that a command came on: what is writable there is a hint. */
  readonly #commandQueues = new Set<number>();
  readonly #counters = { hint_recorded_pages: 0, hint_recorded_free_pages: 0 };

  /**
   * `onHint` is told of every block that the driver hints; `trustsFreePages`: the kernel relies on
   * what its free pages hold (init_on_free, page_poison).
   */
  constructor(
    machine: Pick<X86Machine, 'memory' | 'memoryBytes' | 'consoleText'>,
    statistics: () => Readonly<Record<string, number>>,
    onHint: (firstPfn: number, pageCount: number) => void,
    trustsFreePages: boolean,
  ) {
    this.#trustsFreePages = trustsFreePages;
    this.#machine = machine;
    this.#statistics = statistics;
    this.#onHint = onHint;
  }

  /** The reply, or undefined for a message of another group. */
  handle(message: Message): Message | undefined {
    switch (message.name) {
      case 'getFreeSet':
        return { name: 'freeSet', bits: this.unusedPages().bytes };
      case 'getReliance':
        return this.#reliance();
      case 'countFree':
        return { name: 'freeCounts', counts: this.#countUnused(message.ranges) };
      case 'getErased':
        return { name: 'erased', pfns: new Uint8Array(0) };
      case 'verify':
        return { name: 'verified', problems: this.#complaints() };
      case 'getStatistics':
        return { name: 'statistics', counters: Object.entries(this.#allStatistics()).flat() };
      case 'getHistory':
        return { name: 'history', lines: [this.#describe(message.pfn)] };
      case 'getGuestDigest':
        return { name: 'guestDigest', sha256: createHash('sha256').digest('hex') };
      default:
        return undefined;
    }
  }

  /** What is in use and not in the balloon; what nobody has written yet cannot be told apart. */
  #reliance(): Message<'reliance'> {
    const unused = this.unusedPages();
    const offline = offlinePages(this.#machine.memory, this.#memoryMap);
    const contents = Bitmap.allSet(unused.bitCount);
    for (let i = 0; i < contents.words.length; i++) {
      contents.words[i]! &= ~(unused.words[i]! | offline.words[i]!);
    }
    const freed = freePages(this.#machine.memory, this.#memoryMap).bytes;
    return {
      name: 'reliance',
      contents: contents.bytes,
      freed: this.#trustsFreePages ? freed : new Uint8Array(0),
      // Pages are compared as they are, and not with a tag.
      freed_tag: 0,
      undefined_pages: 0,
    };
  }

  /** In the buddy lists, or held for hinting. */
  unusedPages(): Bitmap {
    const free = freePages(this.#machine.memory, this.#memoryMap);
    for (const [pfn, pageCount] of this.#held) {
      if (this.#isHeld(pfn, pageCount)) free.setRange(pfn, pageCount);
      else this.#held.delete(pfn);
    }
    return free;
  }

  /** Chains on their way to the host. */
  hinted(messages: readonly Message<'avail'>[]): void {
    for (const message of messages) {
      const inCount = toUint16(message.in_count)!;
      const outBytes = toUint32(message.out_bytes)!;
      const isCommand = outBytes.some((bytes, i) => bytes === COMMAND_BYTES && inCount[i] === 0);
      if (isCommand) this.#commandQueues.add(message.queue);
      if (!this.#commandQueues.has(message.queue)) continue;
      const gpas = toFloat64(message.in_gpa)!;
      const lengths = toUint32(message.in_bytes)!;
      for (let i = 0; i < gpas.length; i++) {
        this.#hold(gpaToPfn(gpas[i]!), Math.floor(lengths[i]! / PAGE_SIZE_BYTES));
      }
    }
  }

  get #memoryMap(): MemoryMap {
    this.#map ??= findMemoryMap(this.#machine.memory);
    if (!this.#map) {
      throw new BallastError('MESSAGE_UNEXPECTED', 'the guest has no page allocator that we know');
    }
    return this.#map;
  }

  #hold(pfn: number, pageCount: number): void {
    if (pageCount === 0 || (pfn + pageCount) * PAGE_SIZE_BYTES > this.#machine.memoryBytes) return;
    this.#held.set(pfn, pageCount);
    this.#onHint(pfn, pageCount);
    this.#counters.hint_recorded_pages += pageCount;
    if (this.#isHeld(pfn, pageCount)) this.#counters.hint_recorded_free_pages += pageCount;
  }

  #isHeld(firstPfn: number, pageCount: number): boolean {
    return isHeldBlock(this.#machine.memory, this.#memoryMap, firstPfn, pageCount);
  }

  #countUnused(bytes: Uint8Array): Uint8Array {
    const ranges = toUint32(bytes);
    if (!ranges || ranges.length % 2 !== 0) {
      throw new BallastError('MESSAGE_INVALID', 'ranges: expected pairs of first frame and count');
    }
    const unused = this.unusedPages();
    const counts = new Uint32Array(ranges.length / 2);
    for (let i = 0; i < counts.length; i++) {
      const first = Math.min(ranges[2 * i]!, unused.bitCount);
      const pageCount = Math.min(ranges[2 * i + 1]!, unused.bitCount - first);
      counts[i] = unused.countRange(first, pageCount);
    }
    return u32Bytes(counts);
  }

  /** What the kernel says of itself on its console. */
  #complaints(): string[] {
    const bad = /BUG|Oops|panic|Bad page|WARNING|corrupt/;
    return this.#machine.consoleText
      .split('\n')
      .filter((line) => bad.test(line))
      .slice(0, 16);
  }

  #describe(pfn: number): string {
    const unused = this.unusedPages();
    const state = pfn < unused.bitCount && unused.get(pfn) ? 'free' : 'allocated';
    return `guest: ${state} in the kernel's memory map`;
  }

  #allStatistics(): Record<string, number> {
    const unused = this.unusedPages();
    let heldPages = 0;
    for (const pageCount of this.#held.values()) heldPages += pageCount;
    return {
      ...this.#statistics(),
      ...this.#counters,
      nr_free_pages: unused.count() - heldPages,
      held_pages: heldPages,
      peak_rss_bytes: process.resourceUsage().maxRSS * 1024,
    };
  }
}

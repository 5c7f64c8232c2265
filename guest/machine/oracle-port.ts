/**
 * The oracle group of the channel: ground truth for evaluation, which no real host has. It reads
 * everything and changes nothing.
 */
import { type Message, u32Bytes } from '../../protocol/index.ts';
import { Bitmap, type EventLog, type Nanoseconds, type Pfn } from '../../shared/index.ts';
import type { HintingStrategy } from '../balloon/hinting.ts';
import type { HintRecord } from '../hinting/hint-record.ts';
import type { PageAllocator } from '../mm/index.ts';
import type { PageReporting } from '../page-reporting/page-reporting.ts';
import type { PageReliance } from '../reliance/page-reliance.ts';
import { rangesOf } from './memory-port.ts';
import { type Ram, tagOfFill } from './ram.ts';

/** Lines of a reply at most. */
const LINES_MAX = 256;

export interface Witnesses {
  readonly mm: PageAllocator;
  readonly ram: Ram;
  readonly strategy: HintingStrategy | null;
  readonly reporting: PageReporting;
  readonly reliance: PageReliance;
  readonly hints: HintRecord;
  readonly log: EventLog;
  now(): Nanoseconds;
  /** Empty when every page has exactly one owner and all counts agree. */
  audit(): string[];
  statistics(): Readonly<Record<string, number>>;
}

export class OraclePort {
  readonly #of: Witnesses;

  constructor(witnesses: Witnesses) {
    this.#of = witnesses;
  }

  /** The reply, or undefined for a message of another group. */
  handle(message: Message): Message | undefined {
    switch (message.name) {
      case 'getFreeSet':
        return { name: 'freeSet', bits: this.#unusedSet().bytes };
      case 'getReliance':
        return this.#reliance();
      case 'countFree':
        return { name: 'freeCounts', counts: this.#countUnused(message.ranges) };
      case 'getErased':
        return { name: 'erased', pfns: u32Bytes(this.#erased()) };
      case 'verify':
        return { name: 'verified', problems: this.#of.audit().slice(0, LINES_MAX) };
      case 'getStatistics':
        return { name: 'statistics', counters: Object.entries(this.#of.statistics()).flat() };
      case 'getHistory':
        return { name: 'history', lines: this.#historyOf(message.pfn) };
      case 'getGuestDigest':
        return { name: 'guestDigest', sha256: this.#of.log.digest() };
      default:
        return undefined;
    }
  }

  /** Pages that nobody uses: in the buddy lists, on per-CPU lists, held for hinting or reporting. */
  #unusedSet(): Bitmap {
    const set = new Bitmap(this.#of.ram.pageCount);
    this.#of.mm.writeFreeSet(set);
    this.#of.strategy?.writeHeldSet?.(set);
    this.#of.reporting.writeHeldSet(set);
    return set;
  }

  #countUnused(bytes: Uint8Array): Uint8Array {
    const ranges = rangesOf(bytes, this.#of.ram.pageCount);
    const set = this.#unusedSet();
    const counts = new Uint32Array(ranges.length / 2);
    for (let i = 0; i < counts.length; i++) {
      counts[i] = set.countRange(ranges[2 * i]!, ranges[2 * i + 1]!);
    }
    return u32Bytes(counts);
  }

  #reliance(): Message<'reliance'> {
    const { mm, ram, reliance } = this.#of;
    const contents = new Bitmap(ram.pageCount);
    const freed = new Bitmap(ram.pageCount);
    const undefinedPages = reliance.write(contents, freed);
    return {
      name: 'reliance',
      contents: contents.bytes,
      freed: mm.freedContent === null ? new Uint8Array(0) : freed.bytes,
      freed_tag: tagOfFill(mm.freedContent ?? 'zero'),
      undefined_pages: undefinedPages,
    };
  }

  #erased(): Uint32Array {
    const { ram } = this.#of;
    const pfns = [...ram.erased.keys()].filter((pfn) => ram.isInUse?.(pfn));
    return Uint32Array.from(pfns).sort();
  }

  #historyOf(pfn: Pfn): string[] {
    const { hints, mm, ram } = this.#of;
    if (pfn >= ram.pageCount) return [];
    const state = mm.isFree(pfn) ? 'free' : 'allocated';
    const tag = ram.tags[pfn]!.toString(16).padStart(8, '0');
    const told = hints.historyOf(pfn).slice(1 - LINES_MAX);
    const lostTag = ram.erased.get(pfn)?.toString(16).padStart(8, '0');
    const lost = lostTag ? `, content tag ${lostTag} was discarded while in use` : '';
    return [...told, `guest at ${this.#of.now()} ns: ${state}, content tag ${tag}${lost}`];
  }
}

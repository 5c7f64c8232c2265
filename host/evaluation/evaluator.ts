/**
 * Watches a migration with knowledge that no real host has (the oracle messages): how accurate the
 * hints were, and whether the destination is right, page by page. No device or migration code
 * calls it or reads it; what it finds out changes nothing.
 */
import type { LostPage, MigrationFigures, MigrationReport } from '../../protocol/index.ts';
import { toUint32, u32Bytes } from '../../protocol/index.ts';
import { BallastError, Bitmap, type Pfn } from '../../shared/index.ts';
import { rangesOf, TAG_RECORD_BYTES } from '../memory/records.ts';
import type { MigrationObserver } from '../migration/drive.ts';
import type { LiveDestination } from '../migration/live-destination.ts';
import type { Precopy } from '../migration/precopy.ts';
import type { Vmm } from '../vmm.ts';

/** Lost pages whose history is told: more than anybody reads; all are counted. */
const LOST_TOLD_MAX = 1024;
/** Pages whose records are compared at once. */
const VERIFY_CHUNK_PAGES = 1 << 16;

interface Round {
  readonly freeAtStart: Bitmap;
  readonly hinted: Bitmap;
}

export class Evaluator implements MigrationObserver {
  readonly #vmm: Vmm;
  readonly #onProgress: (sentPages: number, remainingPages: number) => void;
  readonly #destination: LiveDestination | null;
  /** The first round decides a migration; later ones may end before the guest has read their id. */
  #firstRound: Round | null = null;
  #round: Round | null = null;
  #roundCount = 0;
  #usedPages = 0;
  #freeAtUsePages = 0;
  /** Hinted since the last look at the guest: pairs of first frame and count. */
  #pending: number[] = [];
  #startCounters: Readonly<Record<string, number>> = {};
  #startLatePages = 0;

  /** With a live destination, what it received is compared with what it holds as well. */
  constructor(
    vmm: Vmm,
    onProgress: (sentPages: number, remainingPages: number) => void,
    destination: LiveDestination | null = null,
  ) {
    this.#vmm = vmm;
    this.#onProgress = onProgress;
    this.#destination = destination;
  }

  /** Before the migration: counters are reported as what it added. */
  async begin(): Promise<void> {
    this.#startCounters = await guestStatistics(this.#vmm);
    this.#startLatePages = this.#vmm.device.metrics.hint_pages_late;
  }

  async roundStarted(): Promise<void> {
    this.#roundCount++;
    this.#round = {
      freeAtStart: await this.#vmm.getFreeSet(),
      hinted: new Bitmap(this.#vmm.options.ramPages),
    };
    this.#firstRound ??= this.#round;
  }

  hinted(pfn: Pfn, pageCount: number): void {
    this.#round?.hinted.setRange(pfn, pageCount);
    this.#pending.push(pfn, pageCount);
  }

  /** Asks the guest at this instant, before it runs on, which of the pages are free. */
  async hintsApplied(): Promise<void> {
    if (this.#pending.length === 0) return;
    const ranges = Uint32Array.from(this.#pending);
    this.#pending = [];
    const reply = await this.#vmm.request(
      { name: 'countFree', ranges: u32Bytes(ranges) },
      'freeCounts',
    );
    const counts = toUint32(reply.counts);
    if (counts?.length !== ranges.length / 2) {
      throw new BallastError('MESSAGE_INVALID', 'freeCounts: expected one count per range');
    }
    for (let i = 0; i < counts.length; i++) {
      this.#usedPages += ranges[2 * i + 1]!;
      this.#freeAtUsePages += counts[i]!;
    }
  }

  sent(pfn: Pfn, tag: number): void {
    this.#destination?.sent(pfn, tag);
  }

  async sliceSent(): Promise<void> {
    await this.#destination?.flush();
  }

  progress(sentPages: number, remainingPages: number): void {
    this.#onProgress(sentPages, remainingPages);
  }

  /** At switchover, before either side runs on. */
  async report(precopy: Precopy, figures: MigrationFigures): Promise<MigrationReport> {
    const vmm = this.#vmm;
    const free = await vmm.getFreeSet();
    const different = figures.status === 'completed' ? await this.#verify(precopy, free) : [];
    const lost = merged(different, await this.#erased());
    const counters = await guestStatistics(vmm);
    const total = (name: string): number => counters[name] ?? 0;
    const added = (name: string): number => total(name) - (this.#startCounters[name] ?? 0);
    const recorded = added('hint_recorded_pages');
    const holds = added('lock_holds');
    return {
      migration: figures,
      hints: {
        rounds: this.#roundCount,
        blocks: precopy.ledger.blocks,
        pages: precopy.ledger.pages,
        late_pages: vmm.device.metrics.hint_pages_late - this.#startLatePages,
        stale_pages: this.#usedPages - this.#freeAtUsePages,
        precision_at_record: ratio(added('hint_recorded_free_pages'), recorded),
        precision_at_use: ratio(this.#freeAtUsePages, this.#usedPages),
        recall: this.#recall(),
      },
      memory: {
        pages: vmm.ramPageCount,
        free_pages_at_end: free.count(),
        wasted_pages: precopy.destination.normal.countAnd(free),
        lost_pages: lost.length,
      },
      lost: await this.#histories(precopy, lost.slice(0, LOST_TOLD_MAX)),
      lock: {
        max_hold_ns: total('lock_hold_ns_max'),
        mean_hold_ns: holds > 0 ? Math.round(added('lock_hold_ns_total') / holds) : 0,
        max_nodes: total('lock_nodes_max'),
      },
      guest: {
        held_pages_max: total('held_pages_max'),
        alloc_stalls: added('allocstall'),
        alloc_failures: added('replay_failed'),
        hinting_cpu_ns: added('kthread_cpu_ns'),
      },
    };
  }

  #recall(): number | null {
    const round = this.#firstRound;
    if (!round) return null;
    return ratio(round.hinted.countAnd(round.freeAtStart), round.freeAtStart.count());
  }

  /**
   * Every page that somebody uses must be the same on both sides. Nobody uses a page in the balloon:
   * the source discarded it, and an older copy at the destination is as good (§5.5.6).
   */
  async #verify(precopy: Precopy, free: Bitmap): Promise<Pfn[]> {
    const { ram, ramPages } = this.#vmm.options;
    const { inflatedPages } = this.#vmm.device;
    const isUsed = (pfn: Pfn) => ram.get(pfn) && !free.get(pfn) && !inflatedPages.get(pfn);
    if (this.#vmm.records.recordSizeBytes !== TAG_RECORD_BYTES) {
      return this.#verifyWholePages(precopy, isUsed);
    }
    const lost: Pfn[] = [];
    for (let first = 0; first < ramPages; first += VERIFY_CHUNK_PAGES) {
      const count = Math.min(VERIFY_CHUNK_PAGES, ramPages - first);
      const source = await this.#vmm.readRecords(Uint32Array.of(first, count));
      for (let i = 0; i < count; i++) {
        const pfn = first + i;
        if (isUsed(pfn) && source[i] !== precopy.destination.tags[pfn]) lost.push(pfn);
      }
    }
    return lost;
  }

  /** Only what is used is read, on both sides: what was sent, and what a live destination holds. */
  async #verifyWholePages(precopy: Precopy, isUsed: (pfn: Pfn) => boolean): Promise<Pfn[]> {
    const used: Pfn[] = [];
    for (let pfn = 0; pfn < this.#vmm.options.ramPages; pfn++) if (isUsed(pfn)) used.push(pfn);
    const ranges = rangesOf(used);
    const source = await this.#vmm.readRecords(ranges);
    const arrived = await this.#destination?.readRecords(ranges);
    return used.filter((pfn, i) => {
      if (source[i] !== precopy.destination.tags[pfn]) return true;
      return arrived !== undefined && arrived[i] !== source[i];
    });
  }

  /** What discarding hints took from the guest: lost on both sides, so no comparison finds it. */
  async #erased(): Promise<Pfn[]> {
    const { pfns } = await this.#vmm.request({ name: 'getErased' }, 'erased');
    const erased = toUint32(pfns);
    if (!erased?.every((pfn) => pfn < this.#vmm.options.ramPages)) {
      throw new BallastError('MESSAGE_INVALID', 'erased: expected frames of the guest');
    }
    return [...erased];
  }

  async #histories(precopy: Precopy, pfns: readonly Pfn[]): Promise<LostPage[]> {
    const told: LostPage[] = [];
    for (const pfn of pfns) {
      const { lines } = await this.#vmm.request({ name: 'getHistory', pfn }, 'history');
      const tag = precopy.destination.tags[pfn]!.toString(16).padStart(8, '0');
      told.push({
        pfn,
        history: [
          ...precopy.ledger.historyOf(pfn),
          ...lines,
          `destination: content tag ${tag}${precopy.ledger.skipped.get(pfn) ? ', skipped to the end' : ''}`,
        ],
      });
    }
    return told;
  }
}

/** The guest's counters by name. */
export async function guestStatistics(vmm: Vmm): Promise<Record<string, number>> {
  const { counters } = await vmm.request({ name: 'getStatistics' }, 'statistics');
  const named: Record<string, number> = {};
  for (let i = 0; i + 1 < counters.length; i += 2) {
    named[String(counters[i])] = Number(counters[i + 1]);
  }
  return named;
}

/** The members of either list, ascending. */
function merged(one: readonly Pfn[], other: readonly Pfn[]): Pfn[] {
  return [...new Set([...one, ...other])].sort((a, b) => a - b);
}

function ratio(part: number, whole: number): number | null {
  return whole > 0 ? part / whole : null;
}

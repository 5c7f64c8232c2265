/**
 * Watches a migration at its source with knowledge that no real host has (the oracle messages): how
 * accurate the hints were. No device or migration code calls it or reads it; what it finds out
 * changes nothing.
 */
import type { MigrationReport } from '../../protocol/index.ts';
import { toUint32, u32Bytes } from '../../protocol/index.ts';
import { BallastError, Bitmap, NS_PER_MS, type Pfn } from '../../shared/index.ts';
import type { MigrationObserver } from '../migration/migration.ts';
import type { PrecopyFigures } from '../migration/migration-counters.ts';
import type { Precopy } from '../migration/precopy.ts';
import type { Vmm } from '../vmm.ts';
import { Waste } from './waste.ts';

interface Round {
  readonly freeAtStart: Bitmap;
  readonly hinted: Bitmap;
}

/** The guest when the migration was over. */
interface End {
  readonly free: Bitmap;
  readonly counters: Readonly<Record<string, number>>;
}

export class Evaluator implements MigrationObserver {
  readonly #vmm: Vmm;
  readonly #onProgress: (sentPages: number, remainingPages: number) => void;
  readonly #waste: Waste;
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
  #startStolenNs = 0;
  #end: End | null = null;

  constructor(vmm: Vmm, onProgress: (sentPages: number, remainingPages: number) => void) {
    this.#vmm = vmm;
    this.#onProgress = onProgress;
    this.#waste = new Waste(vmm.options.ramPages);
  }

  /** Before the migration: counters are reported as what it added. */
  async begin(): Promise<void> {
    this.#startCounters = await guestStatistics(this.#vmm);
    this.#startLatePages = this.#vmm.device.metrics.hint_pages_late;
    this.#startStolenNs = this.#vmm.cpuThrottle.stolenNs;
  }

  async passStarted(cmdId: number | null): Promise<void> {
    const free = await this.#vmm.getFreeSet();
    this.#waste.passStarted(free);
    if (cmdId === null) return;
    this.#roundCount++;
    this.#round = { freeAtStart: free, hinted: new Bitmap(this.#vmm.options.ramPages) };
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
    if (tag !== 0) this.#waste.sentWithContent(pfn);
  }

  progress(sentPages: number, remainingPages: number): void {
    this.#onProgress(sentPages, remainingPages);
  }

  async switchover(): Promise<void> {
    this.#end = await this.#lookAtGuest();
  }

  /** The guest's counters when it was seen last. */
  get endCounters(): Readonly<Record<string, number>> {
    return this.#end?.counters ?? this.#startCounters;
  }

  async #lookAtGuest(): Promise<End> {
    return {
      free: await this.#vmm.getFreeSet(),
      counters: await guestStatistics(this.#vmm),
    };
  }

  /** Of a migration that is over; without what only the destination can find. */
  async report(precopy: Precopy, figures: PrecopyFigures): Promise<MigrationReport> {
    const vmm = this.#vmm;
    const { ledger } = precopy;
    const { free, counters } = this.#end ?? (await this.#lookAtGuest());
    const total = (name: string): number => counters[name] ?? 0;
    const added = (name: string): number => total(name) - (this.#startCounters[name] ?? 0);
    const recorded = added('hint_recorded_pages');
    const holds = added('lock_holds');
    const stolenNs = vmm.cpuThrottle.stolenNs - this.#startStolenNs + added('dirty_limited_ns');
    return {
      migration: { ...figures, stolen_cpu_ms: Math.round(stolenNs / NS_PER_MS) },
      hints: {
        rounds: this.#roundCount,
        blocks: ledger.blocks,
        pages: ledger.pages,
        unique_pages: ledger.hinted.count(),
        already_sent_pages: ledger.alreadySentPages,
        useful_precision: ratio(ledger.usefulPages, ledger.hinted.count()),
        late_pages: vmm.device.metrics.hint_pages_late - this.#startLatePages,
        stale_pages: this.#usedPages - this.#freeAtUsePages,
        precision_at_record: ratio(added('hint_recorded_free_pages'), recorded),
        precision_at_use: ratio(this.#freeAtUsePages, this.#usedPages),
        recall: this.#recall(),
      },
      memory: {
        pages: vmm.ramPageCount,
        free_pages_at_end: free.count(),
        wasted_pages: this.#waste.pagesUntil(free),
        lost_pages: 0,
        broken_free_pages: 0,
        undefined_pages: 0,
      },
      lost: [],
      error_desc: null,
      limit_bytes: null,
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

function ratio(part: number, whole: number): number | null {
  return whole > 0 ? part / whole : null;
}

/**
 * Writing pages to storage (linux mm/page-writeback.c, mm/filemap.c: folio_end_writeback). Whoever
 * starts it goes on; a thread ends the writeback of all pages of one request together.
 */
import type { Nanoseconds, Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageFlag } from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';

/** A drive: how long a request takes, and each of its pages. */
export interface StorageOptions {
  readonly requestNs: Nanoseconds;
  readonly pageNs: Nanoseconds;
}

/** An NVMe drive: 100 µs a request, 1 GB/s. */
export const DEFAULT_STORAGE: StorageOptions = { requestNs: 100_000, pageNs: 4_096 };

export class Writeback {
  readonly storage: StorageOptions;
  readonly #kernel: Kernel;
  readonly #folios: Folios;
  #queue: Pfn[] = [];
  /** Those of the queue that reclaim waits for. */
  readonly #forReclaim = new Set<Pfn>();
  #isRunning = false;

  constructor(kernel: Kernel, folios: Folios, storage: StorageOptions = DEFAULT_STORAGE) {
    this.#kernel = kernel;
    this.#folios = folios;
    this.storage = storage;
  }

  /** What a request of so many pages takes. */
  requestNs(pageCount: number): Nanoseconds {
    return this.storage.requestNs + pageCount * this.storage.pageNs;
  }

  /** A page that was cleaned under its lock, and stays where it is until the drive has it. */
  start(pfn: Pfn, forReclaim: boolean): void {
    this.#folios.pages.setFlag(pfn, PageFlag.WRITEBACK);
    this.#kernel.mm.vmstat.nr_writeback++;
    this.#queue.push(pfn);
    if (forReclaim) this.#forReclaim.add(pfn);
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#kernel.spawn('writeback', () => this.#run());
  }

  *#run(): Kthread {
    while (this.#queue.length > 0) {
      const batch = this.#queue;
      this.#queue = [];
      yield { kind: 'sleep', ns: this.requestNs(batch.length) };
      for (const pfn of batch) this.#end(pfn);
    }
    this.#isRunning = false;
  }

  #end(pfn: Pfn): void {
    const { pages, lruvec, locks } = this.#folios;
    const { vmstat } = this.#kernel.mm;
    vmstat.nr_writeback--;
    // PG_reclaim: clean now, and reclaim has looked at it already.
    const isInactive = pages.hasFlag(pfn, PageFlag.LRU) && !pages.hasFlag(pfn, PageFlag.ACTIVE);
    if (this.#forReclaim.delete(pfn) && isInactive) {
      lruvec.rotate(pfn, true);
      vmstat.pgrotated++;
    }
    locks.endWriteback(pfn);
  }
}

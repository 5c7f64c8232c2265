/** The set of free frames while the events of a recording happen, and what does not fit in them. */
import type { Bitmap } from '../../shared/index.ts';
import { EventKind, type StartState, type TraceEvents } from '../../shared/recording/index.ts';

export class FreeReplay {
  /** Free for the guest: in a buddy list or on a per-CPU list. */
  readonly free: Bitmap;
  /** Frames allocated while they were allocated already, freed while free. */
  doubleAllocPages = 0;
  doubleFreePages = 0;
  readonly #events: TraceEvents;
  #next = 0;

  constructor(start: Pick<StartState, 'free' | 'onPcp'>, events: TraceEvents) {
    this.free = start.free.clone();
    this.free.or(start.onPcp);
    this.#events = events;
  }

  /** Every event before `atNs`; Infinity for all. */
  runUntil(atNs: number): void {
    const { count, atNs: times } = this.#events;
    while (this.#next < count && times[this.#next]! < atNs) this.#step(this.#next++);
  }

  #step(i: number): void {
    const first = this.#events.pfn[i]!;
    const end = first + (1 << this.#events.order[i]!);
    const isAlloc = this.#events.kind[i] === EventKind.ALLOC;
    for (let pfn = first; pfn < end; pfn++) {
      const wasFree = this.free.get(pfn);
      if (isAlloc) {
        if (wasFree) this.free.clear(pfn);
        else this.doubleAllocPages++;
      } else if (wasFree) this.doubleFreePages++;
      else this.free.set(pfn);
    }
  }
}

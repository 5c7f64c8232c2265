/**
 * A growable TraceEvents. An import does not know how many events a trace holds; a reader does,
 * and gives the exact capacity.
 */
import type { TraceEvents } from './format.ts';

export class EventColumns implements TraceEvents {
  count = 0;
  atNs: Float64Array;
  pfn: Uint32Array;
  order: Uint8Array;
  kind: Uint8Array;
  gfpClass: Uint16Array;
  cpu: Uint8Array;
  migratetype: Uint8Array;

  constructor(capacity: number) {
    this.atNs = new Float64Array(capacity);
    this.pfn = new Uint32Array(capacity);
    this.order = new Uint8Array(capacity);
    this.kind = new Uint8Array(capacity);
    this.gfpClass = new Uint16Array(capacity);
    this.cpu = new Uint8Array(capacity);
    this.migratetype = new Uint8Array(capacity);
  }

  /** Adds a free; the fields of an allocation stay 0. Returns the event's index. */
  push(atNs: number, kind: number, pfn: number, order: number, cpu: number): number {
    if (this.count === this.atNs.length) this.#grow();
    const i = this.count++;
    this.atNs[i] = atNs;
    this.kind[i] = kind;
    this.pfn[i] = pfn;
    this.order[i] = order;
    this.cpu[i] = cpu;
    return i;
  }

  /** The same columns, as long as `count`. */
  trimmed(): TraceEvents {
    const { count } = this;
    return {
      count,
      atNs: this.atNs.subarray(0, count),
      pfn: this.pfn.subarray(0, count),
      order: this.order.subarray(0, count),
      kind: this.kind.subarray(0, count),
      gfpClass: this.gfpClass.subarray(0, count),
      cpu: this.cpu.subarray(0, count),
      migratetype: this.migratetype.subarray(0, count),
    };
  }

  #grow(): void {
    const larger = new EventColumns(Math.max(1024, 2 * this.atNs.length));
    for (const name of COLUMNS) larger[name].set(this[name]);
    larger.count = this.count;
    Object.assign(this, larger);
  }
}

const COLUMNS = ['atNs', 'pfn', 'order', 'kind', 'gfpClass', 'cpu', 'migratetype'] as const;

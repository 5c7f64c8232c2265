/** Where a migration's stream can go, and at its end the guest. */
import type { StreamLink } from '../../protocol/index.ts';
import { BallastError, type Pfn } from '../../shared/index.ts';
import type { Vmm } from '../vmm.ts';
import type { MigrationTarget } from './migration.ts';
import { OutgoingStream } from './outgoing.ts';
import type { DeviceState } from './stream.ts';

/** Another host: it gets pages and states, and then the guest moves to it. */
export class ToHost extends OutgoingStream implements MigrationTarget {
  readonly #vmm: Vmm;
  readonly #saveStates: () => readonly DeviceState[];

  constructor(vmm: Vmm, link: StreamLink, saveStates: () => readonly DeviceState[]) {
    super(link, vmm.records.recordSizeBytes);
    this.#vmm = vmm;
    this.#saveStates = saveStates;
  }

  async handOver(): Promise<void> {
    // What was posted is the guest's already when the device's state is taken.
    await this.#vmm.settle();
    const address = await this.finish(this.#saveStates());
    const { error } = await this.#vmm.request({ name: 'moveTo', address }, 'moved');
    if (error) throw new BallastError('PEER_CLOSED', `the guest could not move: ${error}`);
  }
}

/** Pages of the stream that are kept until they are read; one that nobody reads keeps no more. */
const STREAM_PAGES_MAX = 1 << 20;

/** Nowhere: the stream is kept for whoever reads it, and the guest stays as it is. */
export class KeptStream implements MigrationTarget {
  /** Pairs of frame and content record, in the order in which they were sent. */
  #pairs: number[] = [];

  page(pfn: Pfn, tag: number): void {
    if (this.#pairs.length < 2 * STREAM_PAGES_MAX) this.#pairs.push(pfn, tag);
  }

  mark(): void {}

  async flush(): Promise<void> {}

  async handOver(): Promise<void> {}

  /** What was sent since the last call. */
  take(): Uint32Array {
    const pairs = Uint32Array.from(this.#pairs);
    this.#pairs = [];
    return pairs;
  }
}

/**
 * A migration in the background, as QMP's `migrate` starts one: it gets on while the run loop lets
 * time pass, and between two steps of time it can be asked, limited and cancelled.
 */
import type { MigrateParams, MigrationStatus } from '../../protocol/index.ts';
import type { Nanoseconds } from '../../shared/index.ts';
import type { Vmm } from '../vmm.ts';
import { answer, type MigrationObserver } from './drive.ts';
import { Precopy } from './precopy.ts';
import type { MigrationReply, MigrationRequest } from './thread.ts';

/** Pages of the stream that are kept until they are read; a job that nobody reads keeps no more. */
const STREAM_PAGES_MAX = 1 << 20;

export class MigrationJob {
  readonly #vmm: Vmm;
  readonly #precopy: Precopy;
  readonly #thread: ReturnType<Precopy['run']>;
  readonly #observer: MigrationObserver;
  /** Pairs of frame and content record, in the order in which they were sent. */
  #stream: number[] = [];
  #step: IteratorResult<MigrationRequest, { readonly status: MigrationStatus }>;
  #status: MigrationStatus = 'active';

  constructor(vmm: Vmm, params: MigrateParams) {
    this.#vmm = vmm;
    this.#observer = {
      hinted: () => undefined,
      progress: () => undefined,
      sent: (pfn, tag) => this.#keep(pfn, tag),
      roundStarted: async () => undefined,
      hintsApplied: async () => undefined,
    };
    const precopy = new Precopy(vmm, params, this.#observer);
    this.#precopy = precopy;
    vmm.hintConsumer = {
      onHint: (firstPfn, pageCount, origin) => precopy.applyHint(firstPfn, pageCount, origin),
      afterHints: async () => undefined,
    };
    this.#thread = precopy.run();
    this.#step = this.#thread.next();
  }

  get status(): MigrationStatus {
    return this.#status;
  }

  get isOver(): boolean {
    return this.#step.done === true;
  }

  get progress(): Precopy['progress'] {
    return this.#precopy.progress;
  }

  setLimits(limits: Parameters<Precopy['setLimits']>[0]): void {
    this.#precopy.setLimits(limits);
  }

  cancel(): void {
    this.#precopy.cancel();
  }

  /** What was sent since the last call. */
  takeStream(): Uint32Array {
    const pairs = Uint32Array.from(this.#stream);
    this.#stream = [];
    return pairs;
  }

  /** The machine's time passes to `atNs`, with all that the migration does until then. */
  async advanceTo(atNs: Nanoseconds): Promise<void> {
    while (!this.#step.done) {
      const request = this.#step.value;
      if (request.kind === 'advanceTo' && request.atNs > atNs) break;
      this.#step = await this.#next(request);
    }
    if (this.#step.done && this.#status === 'active') {
      this.#status = this.#step.value.status;
      this.#vmm.hintConsumer = null;
    }
    await this.#vmm.advanceTo(atNs);
  }

  async #next(
    request: MigrationRequest,
  ): Promise<IteratorResult<MigrationRequest, { readonly status: MigrationStatus }>> {
    // Nobody else runs here, so there is nothing to let in between.
    if (request.kind === 'preempt') return this.#thread.next();
    let reply: MigrationReply;
    try {
      reply = await answer(request, this.#vmm, this.#observer);
    } catch (error) {
      return this.#thread.throw(error);
    }
    return this.#thread.next(reply);
  }

  #keep(pfn: number, tag: number): void {
    if (this.#stream.length < 2 * STREAM_PAGES_MAX) this.#stream.push(pfn, tag);
  }
}

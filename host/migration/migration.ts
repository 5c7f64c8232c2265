/**
 * One migration, on the source: a state machine with QEMU's states around the migration thread. It
 * runs to its end, or in steps of time between which it can be asked, limited and cancelled; who
 * evaluates it watches from outside.
 */
import type { MigrateParams, MigrationStatus } from '../../protocol/index.ts';
import { BallastError, type Nanoseconds } from '../../shared/index.ts';
import { TAG_RECORD_BYTES } from '../memory/records.ts';
import type { Vmm } from '../vmm.ts';
import type { PrecopyFigures } from './migration-counters.ts';
import { Precopy, type PrecopyOptions } from './precopy.ts';
import type { MigrationStream } from './stream.ts';
import type {
  MigrationReply,
  MigrationRequest,
  MigrationThread,
  MigrationWatcher,
} from './thread.ts';

/** Who watches a migration and may ask the guest what it does. */
export interface MigrationObserver extends MigrationWatcher {
  /** A pass began, right after its sync; with a round of hinting under this id, or without (null). */
  passStarted(cmdId: number | null): Promise<void>;
  /** All hints of one notification were applied. */
  hintsApplied(): Promise<void>;
  /** Everything was sent, the vCPUs are stopped, and the guest is still at the source. */
  switchover(): Promise<void>;
}

/** Of a migration that nobody evaluates. */
export const UNWATCHED: MigrationObserver = {
  hinted: () => undefined,
  progress: () => undefined,
  passStarted: async () => undefined,
  hintsApplied: async () => undefined,
  switchover: async () => undefined,
};

/** Where the stream goes, and at its end the guest. */
export interface MigrationTarget extends MigrationStream {
  /** Time is about to pass: what was sent is on its way. @throws BallastError: it goes nowhere. */
  flush(): Promise<void>;
  /**
   * Everything was sent and the vCPUs are stopped. Once it has resolved, the guest is the
   * destination's. @throws BallastError: it is still ours, and goes on here.
   */
  handOver(): Promise<void>;
}

export type MigrationOptions = Pick<PrecopyOptions, 'neverResendHinted'>;

const never = (): boolean => false;

/** A slice of whole pages is worth reading only as far as it is sent. */
const WHOLE_PAGES_PER_SLICE = 512;

export class Migration {
  readonly precopy: Precopy;
  readonly #vmm: Vmm;
  readonly #target: MigrationTarget;
  readonly #observer: MigrationObserver;
  readonly #thread: MigrationThread<PrecopyFigures>;
  #step: IteratorResult<MigrationRequest, PrecopyFigures>;
  #status: MigrationStatus = 'setup';
  /** A pause before the switchover is over, or is not to be. */
  #mayContinue = false;
  #figures: PrecopyFigures | null = null;
  /** Why it failed. */
  #error: BallastError | null = null;
  /** Why it was cancelled, if there is more to say than that. */
  #interruption: string | null = null;

  constructor(
    vmm: Vmm,
    params: MigrateParams,
    target: MigrationTarget,
    observer: MigrationObserver,
    options: MigrationOptions = {},
  ) {
    this.#vmm = vmm;
    this.#target = target;
    this.#observer = observer;
    const isTag = vmm.records.recordSizeBytes === TAG_RECORD_BYTES;
    const precopy = new Precopy(vmm, params, target, observer, {
      ...options,
      ...(isTag ? {} : { slicePagesMax: WHOLE_PAGES_PER_SLICE }),
    });
    this.precopy = precopy;
    vmm.hintConsumer = {
      onHint: (firstPfn, pageCount, origin) => precopy.applyHint(firstPfn, pageCount, origin),
      afterHints: () => observer.hintsApplied(),
    };
    this.#become('setup');
    this.#thread = precopy.run((state) => this.#become(state));
    this.#step = this.#thread.next();
  }

  get status(): MigrationStatus {
    return this.#status;
  }

  get isOver(): boolean {
    return this.#figures !== null;
  }

  /** Once it is over. */
  get figures(): PrecopyFigures | null {
    return this.#figures;
  }

  /** query-migrate's error-desc. */
  get errorDesc(): string | null {
    return this.#interruption ?? this.#error?.message ?? null;
  }

  setLimits(limits: Parameters<Precopy['setLimits']>[0]): void {
    this.precopy.setLimits(limits);
  }

  /** migrate_cancel. In `device` it is too late, as in QEMU. */
  cancel(): void {
    if (this.isOver || this.#status === 'device') return;
    if (this.#status === 'pre-switchover') {
      this.#interruption = 'Switchover is interrupted';
    }
    this.#become('cancelling');
    this.precopy.end('cancelled');
  }

  /** migrate-continue. */
  continue(): void {
    this.#mayContinue = true;
  }

  /** The link carries nothing for so long. */
  stallLink(ns: Nanoseconds): void {
    this.precopy.stallLink(ns);
  }

  /** The link is gone: what is sent next fails, which in a pause is nothing. */
  cutLink(): void {
    if (this.isOver) return;
    this.#error ??= new BallastError('PEER_CLOSED', 'Unable to write to socket: Broken pipe');
    if (this.#status !== 'pre-switchover') this.precopy.end('failed');
  }

  /**
   * To its end, without a pause; the vCPUs are stopped when it has completed.
   * @throws BallastError when the channel to the guest breaks; a destination that does is no error.
   */
  async run(): Promise<PrecopyFigures> {
    this.#mayContinue = true;
    await this.#runThread(Number.POSITIVE_INFINITY, never);
    return this.#figures!;
  }

  /**
   * The machine's time passes to `atNs`, with all that the migration does until then. Ends early when
   * the migration is over, and once `stop` holds.
   */
  async advanceTo(atNs: Nanoseconds, stop: () => boolean = never): Promise<void> {
    await this.#runThread(atNs, stop);
    if (!this.isOver) await this.#vmm.advanceTo(atNs, stop);
  }

  async #runThread(atNs: Nanoseconds, stop: () => boolean): Promise<void> {
    if (this.isOver) return;
    while (!this.#step.done) {
      if (stop()) return;
      const request = this.#step.value;
      if (request.kind === 'advanceTo' && request.atNs > atNs) return;
      if (request.kind === 'paused' && !this.#mayContinue && !this.precopy.hasEnded) return;
      const step = await this.#next(request, stop);
      if (!step) return;
      this.#step = step;
    }
    this.#vmm.hintConsumer = null;
    this.#figures = await this.#end(this.#step.value);
  }

  /** Null: `stop` held before the request was answered. */
  async #next(
    request: MigrationRequest,
    stop: () => boolean,
  ): Promise<IteratorResult<MigrationRequest, PrecopyFigures> | null> {
    // Nobody else runs here, so there is nothing to let in between.
    if (request.kind === 'preempt') return this.#thread.next();
    let reply: MigrationReply;
    try {
      reply = await this.#answer(request, stop);
    } catch (error) {
      return this.#thread.throw(error);
    }
    if (request.kind === 'advanceTo' && this.#vmm.now < request.atNs) return null;
    return this.#thread.next(reply);
  }

  /** What the machine answers to one request of the thread. */
  async #answer(
    request: Exclude<MigrationRequest, { kind: 'preempt' }>,
    stop: () => boolean,
  ): Promise<MigrationReply> {
    const vmm = this.#vmm;
    switch (request.kind) {
      case 'advanceTo':
        await this.#flush();
        await vmm.advanceTo(request.atNs, stop);
        return undefined;
      case 'dirtyLog':
        return vmm.getDirtyLog(request.clear);
      case 'records':
        return vmm.readRecords(request.ranges);
      case 'paused':
        return undefined;
      case 'passStarted':
        await this.#observer.passStarted(request.cmdId);
        return undefined;
    }
  }

  async #flush(): Promise<void> {
    if (this.#error) return;
    try {
      await this.#target.flush();
    } catch (error) {
      this.#fail(error);
      this.precopy.end('failed');
    }
  }

  /** A peer that breaks the stream ends the migration, not the machine. */
  #fail(error: unknown): void {
    if (!(error instanceof BallastError)) throw error;
    this.#error ??= error;
  }

  async #end(figures: PrecopyFigures): Promise<PrecopyFigures> {
    if (figures.status !== 'completed') {
      this.#become(figures.status);
      return figures;
    }
    await this.#observer.switchover();
    try {
      if (this.#error) throw this.#error;
      await this.#target.handOver();
    } catch (error) {
      this.#fail(error);
      this.#vmm.running = this.precopy.stoppedRunning;
      this.#become('failed');
      return { ...figures, status: 'failed' };
    }
    this.#become('completed');
    return figures;
  }

  #become(status: MigrationStatus): void {
    this.#status = status;
    this.#vmm.emit('MIGRATION', { status });
  }
}

/** What a test bench does to our own host: commands of the laboratory. */
import { DEFAULT_DIRTY_LOG, type DirtyLogParams } from '../../protocol/dirty-log.ts';
import { NS_PER_S, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type {
  GuestStatsReport,
  HostControl,
  MigrationLimits,
  MigrationProgress,
  OnPage,
} from '../host-control.ts';
import type { HostProcess } from './host-process.ts';

export class CommandControl implements HostControl {
  readonly name = 'host commands';
  readonly #host: HostProcess;
  #onPage: OnPage = () => undefined;
  #migrates = false;
  /** Whose log the migrations that follow read. */
  dirtyLog: DirtyLogParams = DEFAULT_DIRTY_LOG;
  nowNs = 0;

  constructor(host: HostProcess) {
    this.#host = host;
  }

  /** Virtual time passes; so much of it that the guest may act. */
  async advanceFor(ns: number): Promise<void> {
    const { now_ns } = await this.#host.call('runUntil', { at_ns: this.nowNs + ns });
    this.nowNs = now_ns;
    await this.#readStream();
  }

  async setTarget(pages: number): Promise<void> {
    await this.#host.call('balloon', { target_pages: pages });
  }

  async actualPages(): Promise<number> {
    return (await this.#host.call('status', null)).actual_pages;
  }

  async setStatsPollingInterval(seconds: number): Promise<void> {
    await this.#host.call('statsPollingInterval', { seconds });
  }

  async guestStats(): Promise<GuestStatsReport> {
    const { stats, last_update_ns } = await this.#host.call('guestStats', null);
    return { stats, lastUpdateS: (last_update_ns ?? 0) / NS_PER_S };
  }

  async migrate(limits: MigrationLimits, onPage: OnPage = () => undefined): Promise<void> {
    this.#onPage = onPage;
    this.#migrates = true;
    await this.#host.call('startMigration', { ...limits, ...this.dirtyLog });
  }

  async setMigrationLimits(limits: MigrationLimits): Promise<void> {
    await this.#host.call('setMigrationLimits', limits);
  }

  async cancelMigration(): Promise<void> {
    await this.#host.call('cancelMigration', null);
  }

  async queryMigration(): Promise<MigrationProgress> {
    const found = await this.#host.call('queryMigration', null);
    return {
      status: found.status,
      normalPages: found.normal_pages,
      duplicatePages: found.duplicate_pages,
      transferredBytes: found.transferred_bytes,
      remainingBytes: found.remaining_bytes,
    };
  }

  async stop(): Promise<void> {
    await this.#host.call('stop', null);
  }

  async cont(): Promise<void> {
    await this.#host.call('cont', null);
  }

  /** A tag stands for a page that is full of it. */
  async #readStream(): Promise<void> {
    if (!this.#migrates) return;
    const pairs = await this.#host.call('migrationStream', null);
    for (let i = 0; i < pairs.length; i += 2) {
      this.#onPage(pairs[i]!, pairs[i + 1] === 0 ? null : pageOf(pairs[i + 1]!));
    }
  }
}

function pageOf(tag: number): Uint8Array {
  const words = new Uint32Array(PAGE_SIZE_BYTES / 4).fill(tag);
  return new Uint8Array(words.buffer);
}

/**
 * One migration with all that is to be said of it: where its stream goes, who watches it, and what
 * becomes of the guest when it is over.
 */
import {
  type ArrivalReport,
  type GuestFacts,
  type MigrateParams,
  type MigrationReport,
  type StreamLink,
  sourceHello,
  withArrival,
} from '../protocol/index.ts';
import { assert, type Pfn } from '../shared/index.ts';
import { verifyArrival, verifyStay } from './evaluation/arrival.ts';
import { Evaluator } from './evaluation/evaluator.ts';
import { loadRam } from './memory/load.ts';
import { InPlace } from './migration/in-place.ts';
import type { Incoming } from './migration/incoming.ts';
import { Migration, type MigrationOptions } from './migration/migration.ts';
import type { DeviceState } from './migration/stream.ts';
import { ToHost } from './migration/targets.ts';
import type { Vmm } from './vmm.ts';

export interface WatchedParts {
  readonly vmm: Vmm;
  readonly facts: GuestFacts;
  readonly options: MigrationOptions;
  /** What travels of the machine beside its memory; called when it has stopped. */
  saveStates(isRunning: boolean): readonly DeviceState[];
  onProgress(sentPages: number, remainingPages: number): void;
}

export class WatchedMigration {
  readonly migration: Migration;
  /** Once it is over. */
  report: MigrationReport | null = null;
  readonly #vmm: Vmm;
  readonly #evaluator: Evaluator;
  /** Of a migration to no other host. */
  readonly #inPlace: InPlace | null;

  private constructor(
    vmm: Vmm,
    migration: Migration,
    evaluator: Evaluator,
    inPlace: InPlace | null,
  ) {
    this.#vmm = vmm;
    this.migration = migration;
    this.#evaluator = evaluator;
    this.#inPlace = inPlace;
  }

  /**
   * `to`: the other host; null: the guest stays, and gets the memory that a destination would hold.
   * @throws BallastError when the other host turns the migration away.
   */
  static async begin(
    { vmm, facts, options, saveStates, onProgress }: WatchedParts,
    params: MigrateParams,
    to: StreamLink | null,
  ): Promise<WatchedMigration> {
    const evaluator = new Evaluator(vmm, onProgress);
    await evaluator.begin();
    const inPlace = to ? null : await InPlace.open(vmm, facts);
    if (to) await sourceHello(to, facts);
    const states = (): readonly DeviceState[] => saveStates(migration.precopy.stoppedRunning);
    const target = inPlace ?? new ToHost(vmm, to!, states);
    vmm.records.onPages = target.onPages;
    const migration: Migration = new Migration(vmm, params, target, evaluator, options);
    return new WatchedMigration(vmm, migration, evaluator, inPlace);
  }

  /** The guest is at another host. */
  get hasTakenGuest(): boolean {
    return this.report?.migration.status === 'completed' && this.#inPlace === null;
  }

  /** The guest's counters when it was seen last. */
  get guestCounters(): Readonly<Record<string, number>> {
    return this.#evaluator.endCounters;
  }

  historyOf(pfn: Pfn): string[] {
    return this.migration.precopy.ledger.historyOf(pfn);
  }

  /** It is over: says what there is to say, and the guest goes on if it is still here. */
  async conclude(): Promise<MigrationReport> {
    const { migration, report } = this;
    if (report) return report;
    const { figures } = migration;
    assert(figures !== null, 'a migration that is over has figures');
    this.#vmm.records.onPages = null;
    const watched = await this.#evaluator.report(migration.precopy, figures);
    const told = { ...watched, error_desc: migration.errorDesc };
    const arrival = await this.#arrival(figures.status === 'completed');
    this.report = arrival ? withArrival(told, arrival, (pfn) => this.historyOf(pfn)) : told;
    return this.report;
  }

  /** What is found of a guest that is here; null: it has moved. */
  async #arrival(hasCompleted: boolean): Promise<ArrivalReport | null> {
    if (!hasCompleted) return verifyStay(this.#vmm);
    if (!this.#inPlace) return null;
    return goOnWith(this.#vmm, this.#inPlace.incoming, this.migration.precopy.stoppedRunning);
  }
}

/** The guest is looked at, gets the memory that was received, and goes on if it ran before. */
export async function goOnWith(
  vmm: Vmm,
  { memory }: Incoming,
  isRunning: boolean,
): Promise<ArrivalReport> {
  const arrival = await verifyArrival(vmm, memory);
  await loadRam(vmm, memory);
  // In virtual time the guest was away for as long as the switchover took.
  vmm.running = isRunning;
  return arrival;
}

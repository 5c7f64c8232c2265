import { dirname } from 'node:path';
import type {
  Address,
  ArrivalReport,
  HostConfig,
  MigrationReport,
} from '../../protocol/control.ts';
import { withArrival } from '../../protocol/migration-report.ts';
import { removeFolder } from '../process/cleanup.ts';
import type { Control } from './control.ts';

/** Host processes for a guest to migrate to, each for one migration. */

/** What the destination of the n-th migration is told, from 1 on; where it listens is its own affair. */
export type DestinationConfig = (index: number) => HostConfig;

export class Destinations {
  readonly #control: Control;
  readonly #configOf: DestinationConfig;
  readonly #given: Address | null;
  #next: Promise<Address> | null = null;
  #count = 0;
  /** Of the hosts that the guest has left. */
  peakRssBytes = 0;

  /** `given`: a host that was started by hand, which gets the guest for good; null: our own. */
  constructor(control: Control, configOf: DestinationConfig, given: Address | null = null) {
    this.#given = given;
    this.#control = control;
    this.#configOf = configOf;
  }

  /** Starts the process for the next migration, in the background. */
  prepare(): void {
    if (this.#given) return;
    this.#next ??= this.#start();
    // Whoever migrates hears of it.
    this.#next.catch(() => undefined);
  }

  /** Where the next migration's stream goes. @throws BallastError when the process cannot be had. */
  async stream(): Promise<Address> {
    this.prepare();
    return this.#given ?? this.#next!;
  }

  /** The guest goes where none of our commands reach it. */
  get takesAway(): boolean {
    return this.#given !== null;
  }

  /** The guest has moved: the destination is the host now. Returns the whole report. */
  async settle(report: MigrationReport): Promise<MigrationReport> {
    const left = this.#control.adoptDestination();
    try {
      const arrival: ArrivalReport = await this.#control.call('arrive', null);
      const pfns = arrival.lost.map(({ pfn }) => pfn);
      // Whatever becomes of a host that its guest has left: the guest is whole where it is now.
      const known = await left.call('ledgerHistories', { pfns }).catch(() => []);
      const retired = await left.call('retire', null).catch(() => null);
      this.peakRssBytes = Math.max(this.peakRssBytes, retired?.peak_rss_bytes ?? 0);
      const lines = new Map(pfns.map((pfn, i) => [pfn, known[i] ?? []]));
      return withArrival(report, arrival, (pfn) => lines.get(pfn) ?? []);
    } finally {
      // Nobody else knows of it any more.
      await left.child.stop();
      await this.#forget();
    }
  }

  /** The guest has stayed. */
  async drop(): Promise<void> {
    await this.#control.dropDestination();
    await this.#forget();
  }

  /** Its process may have been killed before it could remove its folder. */
  async #forget(): Promise<void> {
    const stream = await this.#next?.catch(() => null);
    this.#next = null;
    if (stream?.kind === 'unix') removeFolder(dirname(stream.path));
  }

  async #start(): Promise<Address> {
    const host = this.#control.startDestination();
    const config = this.#configOf(++this.#count);
    const { stream } = await host.call('incoming', { config, stream: null });
    return stream;
  }
}

/**
 * A machine whose balloon device is under test: our guest's kernel on this side, and any device
 * behind any transport on the other. What a test does is written once against this.
 */
import type { System } from '../guest/machine/system.ts';
import type { Kthread } from '../guest/sched/kthread.ts';
import type { VirtioTransport } from '../guest/virtio/transport.ts';
import type { MmOptions } from '../protocol/control.ts';
import type { DeviceConfig, DriverConfig, StrategyName } from '../protocol/index.ts';
import type { Pfn } from '../shared/index.ts';
import type { DeviceTraits } from './device-traits.ts';
import type { HostControl } from './host-control.ts';

/** Features that the device under test offers; the names are those of our own device. */
export type OfferedFeatures = Pick<
  DeviceConfig,
  | 'freePageHint'
  | 'pageReporting'
  | 'pagePoison'
  | 'deflateOnOom'
  | 'ringPacked'
  | 'eventIdx'
  | 'indirectDesc'
  | 'ringReset'
>;

export interface MachineOptions {
  /** On top of VERSION_1 and STATS_VQ, which every device under test offers. */
  readonly offers?: OfferedFeatures;
  /** Default: 4096 (16 MiB). */
  readonly ramPages?: number;
  /** How the driver finds free pages. Default: it does not, and declines hinting. */
  readonly strategy?: StrategyName;
  readonly mm?: Partial<MmOptions>;
  /** As far as the driver is not as Linux's. */
  readonly driver?: Partial<DriverConfig>;
}

export interface InterruptCounts {
  readonly queue: number;
  readonly config: number;
}

export interface ConformanceMachine extends AsyncDisposable {
  /** As the table of results names it. */
  readonly name: string;
  readonly traits: DeviceTraits;
  readonly control: HostControl;
  /** The guest. Its balloon driver has not been started. */
  readonly system: System;
  readonly transport: VirtioTransport;
  readonly ramPages: number;
  /** So far. */
  readonly interrupts: InterruptCounts;
  /** A kernel thread of the guest; resolves with its result. @throws Error if it gets stuck. */
  run<T>(body: () => Kthread<T>): Promise<T>;
  /** Let time pass until it holds. @throws Error naming `what` if it never does. */
  until(condition: () => boolean | Promise<boolean>, what: string): Promise<void>;
  /** Let so much time pass that everything under way arrives. */
  settle(): Promise<void>;
  /** The guest writes whole pages: `word` and then what makes it differ from any other content. */
  fill(pfn: Pfn, pageCount: number, word: number): void;
  /** The first word of a page as the guest finds it now. */
  contentOf(pfn: Pfn): Promise<number>;
}

export const MACHINE_DEFAULTS = { ramPages: 4096 } as const;

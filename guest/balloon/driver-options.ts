/** What a balloon driver is made of, and what it asks of the kernel around it. */
import type { FeatureSet, QueueNumbering } from '../../protocol/index.ts';
import type { Errno } from '../../shared/index.ts';
import type { PageReportingDevice } from '../page-reporting/page-reporting.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { VirtioTransport } from '../virtio/transport.ts';
import type { DriverBehaviour } from './behaviour.ts';
import type { HintingStrategy, HintObserver } from './hinting.ts';
import type { BalloonMemory } from './pages.ts';
import type { MemoryStatistic } from './queues.ts';

/** What free pages are reported through; the kernel has one, for one device. */
export interface PageReportingRegistry {
  /** EBUSY: another device has registered. */
  register(device: PageReportingDevice): Errno;
  unregister(device: PageReportingDevice): Kthread;
}

export interface BalloonDriverOptions {
  readonly transport: VirtioTransport;
  readonly memory: BalloonMemory;
  /**
   * register_oom_notifier: asked with DEFLATE_ON_OOM; `notify` returns the pages it has freed, the
   * result unregisters it.
   */
  readonly registerOomNotifier?: (priority: number, notify: () => Kthread<number>) => () => void;
  /** null: FREE_PAGE_HINT is declined. */
  readonly strategy: HintingStrategy | null;
  readonly observers?: readonly HintObserver[];
  /** The kernel's figures for these tags; without it, STATS_VQ is declined. */
  readonly statistics?: (tags: DriverBehaviour['statistics']) => readonly MemoryStatistic[];
  /** Without it, PAGE_REPORTING is declined. */
  readonly reporting?: PageReportingRegistry;
  /** Default: never. */
  readonly isLowMemory?: () => boolean;
  /** Default: Linux. */
  readonly behaviour?: DriverBehaviour;
  /** Features to accept at most; default: all that the driver knows. */
  readonly features?: FeatureSet;
  /** Default: dense by offered. */
  readonly numbering?: QueueNumbering;
  /** What DEVICE_NEEDS_RESET leads to; default: nothing, as in Linux. */
  readonly onNeedsReset?: 'ignore' | 'reset';
  /** The first statistics buffer is kicked before DRIVER_OK; default: yes, as Linux does. */
  readonly kicksEarly?: boolean;
  /** Hint free pages that the guest relies on, whatever becomes of them; default: no. */
  readonly hintTrustedFreePages?: boolean;
  /** Accept SUSPEND, and suspend the device where Linux resets it; default: no, as Linux. */
  readonly suspendsDevice?: boolean;
}

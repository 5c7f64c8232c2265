/** The balloon driver of a machine, with what its configuration says and its kernel provides. */
import {
  DEFAULT_DRIVER_CONFIG,
  type DriverConfig,
  featuresByName,
  type GuestConfig,
} from '../../protocol/index.ts';
import { DRIVER_BEHAVIOURS } from '../balloon/behaviour.ts';
import { BalloonDriver } from '../balloon/driver.ts';
import { knownFeatures } from '../balloon/features.ts';
import type { HintingStrategy } from '../balloon/hinting.ts';
import type { Folios } from '../folio/index.ts';
import type { HintRecord } from '../hinting/hint-record.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { MemInfo } from '../memory-users/meminfo.ts';
import type { MemoryUsers } from '../memory-users/memory-users.ts';
import type { MovableGeneration } from '../page-migration/index.ts';
import type { PageReporting } from '../page-reporting/page-reporting.ts';
import type { VirtioTransport } from '../virtio/transport.ts';

/** What of a kernel its balloon driver deals with. */
export interface DriverSurroundings {
  readonly kernel: Kernel;
  readonly folios: Folios;
  readonly generation: MovableGeneration;
  readonly users: MemoryUsers;
  readonly transport: VirtioTransport;
  readonly strategy: HintingStrategy | null;
  readonly reporting: PageReporting;
  readonly hints: HintRecord;
}

export function createDriver(
  around: DriverSurroundings,
  config: Pick<GuestConfig, 'kernel' | 'driver'>,
): BalloonDriver {
  const { kernel, folios, generation, users, transport, strategy, reporting, hints } = around;
  const { mm } = kernel;
  const meminfo = new MemInfo(mm, folios.lruvec);
  const driver: DriverConfig = { ...DEFAULT_DRIVER_CONFIG, ...config.driver };
  const behaviour = DRIVER_BEHAVIOURS[driver.behaviour];
  const allowed = driver.features
    ? featuresByName(driver.features)
    : knownFeatures(behaviour, driver.suspendsDevice);
  return new BalloonDriver(kernel, {
    transport,
    memory: {
      folios,
      generation,
      compaction: config.kernel.balloonCompaction,
      freedContent: mm.freedContent,
    },
    strategy,
    observers: [hints],
    registerOomNotifier: (priority, notify) => users.oom.registerOomNotifier(priority, notify),
    statistics: (tags) => meminfo.statistics(tags),
    reporting,
    isLowMemory: () => meminfo.isLow,
    behaviour,
    features: allowed & ~featuresByName(driver.decline),
    numbering: driver.numbering,
    onNeedsReset: driver.onNeedsReset,
    kicksEarly: driver.kicksEarly,
    hintTrustedFreePages: driver.hintTrustedFreePages,
    suspendsDevice: driver.suspendsDevice,
  });
}

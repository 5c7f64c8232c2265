/** The balloon driver of a machine, with what its configuration says and its kernel provides. */
import { DEFAULT_DRIVER_CONFIG, type DriverConfig, featuresByName } from '../../protocol/index.ts';
import { DRIVER_BEHAVIOURS } from '../balloon/behaviour.ts';
import { BalloonDriver } from '../balloon/driver.ts';
import { knownFeatures } from '../balloon/features.ts';
import { MemInfo } from '../memory-users/meminfo.ts';
import type { System, SystemConfig } from './system.ts';

export function createDriver(system: System, config: SystemConfig): BalloonDriver {
  const { mm, folios, generation, users, transport, strategy, reporting, hints } = system;
  const meminfo = new MemInfo(mm, folios.lruvec);
  const driver: DriverConfig = { ...DEFAULT_DRIVER_CONFIG, ...config.driver };
  const behaviour = DRIVER_BEHAVIOURS[driver.behaviour];
  const allowed = driver.features
    ? featuresByName(driver.features)
    : knownFeatures(behaviour, driver.suspendsDevice);
  return new BalloonDriver(system.kernel, {
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

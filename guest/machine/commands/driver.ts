/** Console commands that bind the balloon driver to its device, and suspend it: one at a time. */
import type { Kthread } from '../../sched/kthread.ts';
import { Mutex } from '../../sched/locks.ts';
import type { CommandTable } from '../console.ts';
import type { System } from '../system.ts';

export function driverCommands({ driver }: Pick<System, 'driver'>): CommandTable {
  /** The device_lock: a driver that is freezing is not restored before it is frozen. */
  const lock = new Mutex('device_lock');
  function* alone(change: () => Kthread<string | null>): Kthread<string | null> {
    yield* lock.lock();
    const failure = yield* change();
    lock.unlock();
    return failure;
  }
  return {
    /** rmmod or unbind, and its opposite. */
    driver: (args) => {
      const action = args.oneOf('action', ['remove', 'probe'] as const);
      return alone(() => driver[action]());
    },
    /** The driver's part of a suspend to RAM; everything else runs on. */
    freeze: () => alone(() => driver.freeze()),
    restore: () => alone(() => driver.restore()),
  };
}

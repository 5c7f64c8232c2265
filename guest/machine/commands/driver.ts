/** Console commands that bind the balloon driver to its device, and suspend it. */
import type { CommandTable } from '../console.ts';
import type { System } from '../system.ts';

export function driverCommands({ driver }: Pick<System, 'driver'>): CommandTable {
  return {
    /** rmmod or unbind, and its opposite. */
    driver: (args) => driver[args.oneOf('action', ['remove', 'probe'] as const)](),
    /** The driver's part of a suspend to RAM; everything else runs on. */
    freeze: () => driver.freeze(),
    restore: () => driver.restore(),
  };
}

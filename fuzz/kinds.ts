/** Every kind of case there is. */
import type { Kind } from './case.ts';
import { DEVICE } from './device.ts';
import { DEVICE_RINGS } from './device-rings.ts';
import { DRIVER } from './driver.ts';
import { DRIVER_QUEUES } from './driver-queues.ts';
import { framesOf } from './frames.ts';
import { MIGRATION } from './migration.ts';
import { sessionsOf } from './sessions.ts';

export const KINDS: readonly Kind[] = [
  framesOf('guest-to-host'),
  DEVICE,
  DEVICE_RINGS,
  MIGRATION,
  sessionsOf('guest-to-host'),
  framesOf('host-to-guest'),
  DRIVER,
  DRIVER_QUEUES,
  sessionsOf('host-to-guest'),
];

import type { Bitmap, Costs, Nanoseconds } from '../shared/index.ts';
import type { BalloonDeviceOptions } from './balloon/device.ts';

export interface VmmOptions {
  /** Frame numbers are below this. */
  readonly ramPages: number;
  /** The frames that hold RAM. */
  readonly ram: Bitmap;
  /** Virtual time now, where a host takes over a guest that runs already; default: 0. */
  readonly startNs?: Nanoseconds;
  /** Bytes of a page's content record; default: 4, its tag. */
  readonly recordSizeBytes?: number;
  readonly costs: Costs;
  /** What is left out is as `BALLOON_DEVICE_DEFAULTS` says. */
  readonly device: Partial<BalloonDeviceOptions>;
}

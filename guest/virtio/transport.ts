/**
 * What every virtio transport owes a driver (virtio 1.4 §2 and newtransport.tex), free of any one
 * transport's registers. Operations are generators because each may exit to the host and so take
 * virtual time; a driver says `yield* transport.getStatus()`.
 */
import type { FeatureSet } from '../../protocol/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { DriverQueue } from './queue.ts';

export interface DeviceInfo {
  readonly deviceId: number;
  readonly queueCount: number;
  readonly configSizeBytes: number;
}

export interface VirtioTransport {
  getDeviceInfo(): Kthread<DeviceInfo>;
  /** Offered feature bits as one 64-bit mask. */
  getDeviceFeatures(): Kthread<FeatureSet>;
  setDriverFeatures(features: FeatureSet): Kthread;
  getStatus(): Kthread<number>;
  setStatus(status: number): Kthread;
  /** Write 0 and wait until the device reports 0 (§2.4.2: the driver waits for the reset). */
  reset(): Kthread;
  /**
   * One consistent snapshot of a configuration range: an implementation that needs several
   * accesses repeats them while the generation moves (§2.5.1). Empty: outside the space.
   */
  readConfig(offset: number, lengthBytes: number): Kthread<Uint8Array>;
  writeConfig(offset: number, data: Uint8Array): Kthread;
  /** 0: there is no such queue. */
  getQueueMaxSize(index: number): Kthread<number>;
  /** Give the ring to the device; `callback` runs in interrupt context: it only wakes threads. */
  setQueue(queue: DriverQueue, callback: () => void): Kthread;
  /**
   * Queue reset (§2.6.1), with RING_RESET negotiated: the device forgets the queue and every chain
   * of it. Waits until it has (§2.6.1.1.2); then `setQueue` may follow.
   */
  resetQueue(index: number): Kthread;
  /** Kick: tell the device that chains are available, unless it asked not to be told. */
  notify(queue: DriverQueue): Kthread;
  /** Called in interrupt context when the device changed its configuration. */
  onConfigChanged: (() => void) | null;
}

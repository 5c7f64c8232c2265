/**
 * Suspend of the device instead of a reset (VIRTIO_F_SUSPEND, virtio 1.4 §3.4): its queues and the
 * balloon stay as they are. Meanwhile balloon_lock is held, so that no page of the balloon moves or
 * leaves it, and nobody finds the queues.
 */
import type { Kthread } from '../sched/kthread.ts';
import type { BalloonBinding } from './binding.ts';
import type { BalloonSize } from './size.ts';

/** False: the device cannot be suspended, or would not; it is as it was. */
export function* suspendDevice(binding: BalloonBinding, size: BalloonSize): Kthread<boolean> {
  if (!binding.canSuspend) return false;
  yield* size.lock.lock();
  if (yield* binding.suspend()) return true;
  size.lock.unlock();
  return false;
}

/** Returns why the device does not go on, or null. */
export function* resumeDevice(binding: BalloonBinding, size: BalloonSize): Kthread<string | null> {
  const resumed = yield* binding.resume();
  size.lock.unlock();
  return resumed ? null : 'the device does not resume';
}

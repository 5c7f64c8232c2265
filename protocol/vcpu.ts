/** What the fields of the vcpu messages mean. */

/** `irq.vector` of a configuration change. */
export const CONFIG_VECTOR = 0xffff;

export const ExitReason = {
  /** The granted time was reached. */
  UNTIL: 0,
  /** A queue was notified; the guest ran on for notify_ns. */
  NOTIFY: 1,
  /** The driver waits for the answer to the virtio message before this one. */
  ACCESS: 2,
} as const;
export type ExitReason = (typeof ExitReason)[keyof typeof ExitReason];

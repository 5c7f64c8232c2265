/**
 * Every message that crosses the channel, in one table. Types, validators, the layout hash of the
 * hello and docs/messages.md derive from it. On the wire a message is a positional array
 * `[id, field, field, …]`; a frame is one array of messages.
 *
 * The host is the master: each frame it sends is answered by exactly one frame of the guest.
 * "posted" messages need no reply of their own and travel with the next request.
 */
import type { FieldKind, ValueOf } from './field-kind.ts';
import type { Shape } from './message-shape.ts';
import { MIGRATION_MESSAGES } from './migration-messages.ts';
import { ORACLE_MESSAGES } from './oracle-messages.ts';

export const MESSAGES = {
  hello: {
    id: 1,
    group: 'session',
    from: 'both',
    fields: {
      version: 'u32',
      layout: 'u32',
      role: 'str',
      page_size: 'u32',
      record_size: 'u32',
      ram_pages: 'u32',
      /** u32 pairs: first PFN, count; ascending. Frames below ram_pages in none are holes. */
      ram_segments: 'bin',
      vcpus: 'u16',
      /** Of `plan`; empty: nothing is asked. */
      plan_sha256: 'str',
      /** `key=value`, ascending: what both sides must have in common. */
      plan: 'lines',
    },
    doc: 'First message of each side. The host sends 0 for what only the guest knows.',
  },
  bye: { id: 2, group: 'session', from: 'both', fields: {}, doc: 'The session ends in order.' },
  error: {
    id: 3,
    group: 'session',
    from: 'both',
    fields: { code: 'str', message: 'str' },
    doc: 'The session ends: why, in one line.',
  },

  moveTo: {
    id: 4,
    group: 'session',
    from: 'host',
    fields: { address: 'str' },
    doc: 'The guest goes on under the host that listens there: it connects to it and says hello. Answered by moved.',
  },
  moved: {
    id: 5,
    group: 'session',
    from: 'guest',
    fields: { error: 'str' },
    doc: 'Empty: the other host has the guest, and this session ends. Else why not, and all is as before.',
  },

  run: {
    id: 10,
    group: 'vcpu',
    from: 'host',
    fields: { until_ns: 'u53', notify_ns: 'u53' },
    doc: 'Run the vCPUs until that time; a notification at t shortens it to t + notify_ns. Answered by exit.',
  },
  steal: {
    id: 13,
    group: 'vcpu',
    from: 'host',
    fields: { until_ns: 'u53' },
    doc: 'Posted. No vCPU runs before that time: the host has taken it away.',
  },
  exit: {
    id: 11,
    group: 'vcpu',
    from: 'guest',
    fields: {
      at_ns: 'u53',
      reason: 'u8',
      /** Nothing happens in the guest before this time unless the host wakes it; 2^53−1: never. */
      idle_until_ns: 'u53',
    },
    doc: 'The vCPUs stopped: the answer to one run. Reasons: see ExitReason.',
  },
  irq: {
    id: 12,
    group: 'vcpu',
    from: 'host',
    fields: { vector: 'u16' },
    doc: 'Posted. Interrupt: the queue whose used ring grew, or CONFIG_VECTOR.',
  },

  console: {
    id: 15,
    group: 'console',
    from: 'host',
    fields: { line: 'str' },
    doc: 'Posted. A line typed on the serial console: starts and stops workloads.',
  },
  getConsole: {
    id: 16,
    group: 'console',
    from: 'host',
    fields: {},
    doc: 'Answered by consoleOutput.',
  },
  consoleOutput: {
    id: 17,
    group: 'console',
    from: 'guest',
    fields: { /** Lines typed whose work is not over. */ pending: 'u32', lines: 'lines' },
    doc: 'What was printed since the last time: nothing, or why a line failed.',
  },

  getDeviceInfo: {
    id: 20,
    group: 'virtio',
    from: 'guest',
    fields: {},
    doc: 'Answered by deviceInfo.',
  },
  deviceInfo: {
    id: 21,
    group: 'virtio',
    from: 'host',
    fields: { device_id: 'u32', queue_count: 'u16', config_size: 'u32' },
    doc: 'What sits on the transport.',
  },
  getDeviceFeatures: {
    id: 22,
    group: 'virtio',
    from: 'guest',
    fields: {},
    doc: 'Answered by deviceFeatures.',
  },
  deviceFeatures: {
    id: 23,
    group: 'virtio',
    from: 'host',
    fields: { low: 'u32', high: 'u32' },
    doc: 'Offered feature bits 0–31 and 32–63.',
  },
  setDriverFeatures: {
    id: 24,
    group: 'virtio',
    from: 'guest',
    fields: { low: 'u32', high: 'u32' },
    doc: 'Posted. Accepted feature bits.',
  },
  getStatus: { id: 25, group: 'virtio', from: 'guest', fields: {}, doc: 'Answered by status.' },
  status: {
    id: 26,
    group: 'virtio',
    from: 'host',
    fields: { status: 'u8' },
    doc: 'Device status.',
  },
  setStatus: {
    id: 27,
    group: 'virtio',
    from: 'guest',
    fields: { status: 'u8' },
    doc: 'Posted; 0 resets.',
  },
  getConfig: {
    id: 28,
    group: 'virtio',
    from: 'guest',
    fields: { offset: 'u32', length: 'u32' },
    doc: 'Answered by config.',
  },
  config: {
    id: 29,
    group: 'virtio',
    from: 'host',
    fields: { generation: 'u32', data: 'bin' },
    doc: 'Bytes of the configuration space; empty when the range is outside it.',
  },
  setConfig: {
    id: 30,
    group: 'virtio',
    from: 'guest',
    fields: { offset: 'u32', data: 'bin' },
    doc: 'Posted. Driver writes configuration space.',
  },
  getQueue: {
    id: 31,
    group: 'virtio',
    from: 'guest',
    fields: { index: 'u16' },
    doc: 'Answered by queue.',
  },
  queue: {
    id: 32,
    group: 'virtio',
    from: 'host',
    fields: { index: 'u16', max_size: 'u16', enabled: 'bool' },
    doc: 'max_size 0: there is no such queue. A reset of the queue is over when it is not enabled.',
  },
  setQueue: {
    id: 33,
    group: 'virtio',
    from: 'guest',
    fields: { index: 'u16', size: 'u16', desc_gpa: 'u53', avail_gpa: 'u53', used_gpa: 'u53' },
    doc: 'Posted. Configures and enables a queue.',
  },
  resetQueue: {
    id: 34,
    group: 'virtio',
    from: 'guest',
    fields: { index: 'u16' },
    doc: 'Posted. Needs RING_RESET: the device forgets the queue and every chain of it.',
  },
  avail: {
    id: 35,
    group: 'virtio',
    from: 'guest',
    fields: {
      queue: 'u16',
      /** u16 per chain. */
      heads: 'bin',
      /** f64 per chain: when it was notified, ns. */
      at_ns: 'bin',
      /** u32 per chain: bytes of its device-readable part. */
      out_bytes: 'bin',
      /** The readable bytes of all chains, one after the other. */
      out: 'bin',
      /** u16 per chain: number of its device-writable segments. */
      in_count: 'bin',
      /** f64 per segment of all chains. */
      in_gpa: 'bin',
      /** u32 per segment of all chains, bytes. */
      in_bytes: 'bin',
    },
    doc: 'Posted. Newly available chains, structure of arrays, little-endian.',
  },
  used: {
    id: 36,
    group: 'virtio',
    from: 'host',
    fields: {
      queue: 'u16',
      /** u16 per chain. */ heads: 'bin',
      /** u32 per chain. */ written_bytes: 'bin',
    },
    doc: 'Posted. Chains that the device has used.',
  },
  configChanged: {
    id: 37,
    group: 'virtio',
    from: 'host',
    fields: { generation: 'u32' },
    doc: 'Posted. Configuration change notification.',
  },
  queueBroken: {
    id: 38,
    group: 'virtio',
    from: 'guest',
    fields: { queue: 'u16' },
    doc: 'Posted. What the driver wrote into this ring makes no sense: the device needs a reset (virtio_error).',
  },

  read: {
    id: 40,
    group: 'memory',
    from: 'host',
    fields: { /** u32 pairs: first PFN, count. */ ranges: 'bin' },
    doc: 'Answered by records.',
  },
  records: {
    id: 41,
    group: 'memory',
    from: 'guest',
    fields: { /** record_size bytes per page. */ data: 'bin' },
    doc: 'Content records, in the order asked for.',
  },
  write: {
    id: 42,
    group: 'memory',
    from: 'host',
    fields: { ranges: 'bin', data: 'bin' },
    doc: 'Posted. The device writes guest memory: content records.',
  },
  discard: {
    id: 43,
    group: 'memory',
    from: 'host',
    fields: { ranges: 'bin' },
    doc: 'Posted. The host gives up the backing of pages: they read as zero.',
  },
  limitDirtyRate: {
    id: 48,
    group: 'memory',
    from: 'host',
    fields: { pages_per_s: 'u32' },
    doc: 'Posted. A vCPU that writes more other pages a second waits; 0: any.',
  },
  dirtyLogEnable: {
    id: 44,
    group: 'memory',
    from: 'host',
    fields: {
      enabled: 'bool',
      /** KVM_DIRTY_LOG_INITIALLY_SET: all ones, and nothing is write-protected before it is cleared. */
      initially_set: 'bool',
      /** Size of the dirty ring; 0: a bitmap. */
      ring_entries: 'u32',
    },
    doc: 'Posted. Logging starts, with all bits clear or all set, or ends.',
  },
  getDirtyLog: {
    id: 45,
    group: 'memory',
    from: 'host',
    fields: { clear: 'bool' },
    doc: 'Answered by dirtyLog; clear = get and clear in one step (KVM without manual protect).',
  },
  dirtyLog: {
    id: 46,
    group: 'memory',
    from: 'guest',
    fields: { bits: 'bin' },
    doc: 'One bit per page.',
  },
  clearDirtyLog: {
    id: 47,
    group: 'memory',
    from: 'host',
    fields: { /** A multiple of 32. */ first_pfn: 'u32', /** One bit per page. */ bits: 'bin' },
    doc: 'Posted. Clears the set bits and no others (KVM_CLEAR_DIRTY_LOG).',
  },

  loadRam: {
    id: 65,
    group: 'memory',
    from: 'host',
    fields: {
      /** A multiple of 32. */
      first_pfn: 'u32',
      /** One bit per page: the host backs it with memory. */
      backed: 'bin',
      /** record_size bytes per page. */
      data: 'bin',
    },
    doc: 'Posted. What the destination of a migration holds takes the place of what was in RAM. No write: it sets no bit of the dirty log.',
  },

  ...MIGRATION_MESSAGES,
  ...ORACLE_MESSAGES,
} as const satisfies Readonly<Record<string, Shape>>;

export type MessageName = keyof typeof MESSAGES;

/** One message as code sees it: `{name: 'run', until_ns, notify_ns}`. */
export type Message<N extends MessageName = MessageName> = N extends MessageName
  ? { readonly name: N } & {
      readonly [F in keyof (typeof MESSAGES)[N]['fields']]: ValueOf[(typeof MESSAGES)[N]['fields'][F] &
        FieldKind];
    }
  : never;

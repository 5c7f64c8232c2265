/** What a device has still to do for its driver, and how it travels to another host. */
import type { Message } from '../protocol/index.ts';
import type { Nanoseconds } from '../shared/index.ts';
import type { AvailResult } from './balloon/options.ts';
import { bytesText, type State, type StateFields } from './state/fields.ts';
import type { DeviceQueue } from './virtio/queue.ts';

/** A notification that the device has not looked at. */
export interface Notification {
  readonly kind: 'notification';
  readonly dueNs: Nanoseconds;
  readonly message: Message<'avail'>;
  readonly queue: DeviceQueue | undefined;
}

/** What one notification gave, until it is told. */
export interface Completion extends Pick<AvailResult, 'used' | 'irqVectors'> {
  readonly kind: 'completion';
  dueNs: Nanoseconds;
  readonly index: number;
  readonly queue: DeviceQueue | undefined;
}

/** Entries of all rings, and so many completions. */
export const WORK_MAX = 2 * 65_536;
const BATCH_BYTES_MAX = 1 << 24;

export function saveWork(one: Notification | Completion): State {
  if (one.kind === 'notification') {
    const { queue, heads, at_ns, out_bytes, out, in_count, in_gpa, in_bytes } = one.message;
    return {
      kind: one.kind,
      due_ns: one.dueNs,
      queue,
      heads: bytesText(heads),
      at_ns: bytesText(at_ns),
      out_bytes: bytesText(out_bytes),
      out: bytesText(out),
      in_count: bytesText(in_count),
      in_gpa: bytesText(in_gpa),
      in_bytes: bytesText(in_bytes),
    };
  }
  const used = one.used.filter((message) => message.name === 'used');
  return {
    kind: one.kind,
    due_ns: one.dueNs,
    queue: one.index,
    used: used.map(({ heads, written_bytes }) => ({
      heads: bytesText(heads),
      written_bytes: bytesText(written_bytes),
    })),
    interrupts: one.irqVectors.length > 0,
  };
}

/** @throws BallastError MESSAGE_INVALID naming the field that makes no sense. */
export function loadWork(
  fields: StateFields,
  queueOf: (index: number) => DeviceQueue | undefined,
): Notification | Completion {
  const dueNs = fields.int('due_ns', Number.MAX_SAFE_INTEGER);
  const index = fields.int('queue', 0xffff);
  const queue = queueOf(index);
  const bytes = (name: string) => fields.bytes(name, BATCH_BYTES_MAX);
  if (fields.text('kind', 16) === 'notification') {
    const message: Message<'avail'> = {
      name: 'avail',
      queue: index,
      heads: bytes('heads'),
      at_ns: bytes('at_ns'),
      out_bytes: bytes('out_bytes'),
      out: bytes('out'),
      in_count: bytes('in_count'),
      in_gpa: bytes('in_gpa'),
      in_bytes: bytes('in_bytes'),
    };
    return { kind: 'notification', dueNs, message, queue };
  }
  const used = fields.items('used', 1).map(
    (one): Message<'used'> => ({
      name: 'used',
      queue: index,
      heads: one.bytes('heads', BATCH_BYTES_MAX),
      written_bytes: one.bytes('written_bytes', BATCH_BYTES_MAX),
    }),
  );
  const irqVectors = fields.bool('interrupts') ? [index] : [];
  return { kind: 'completion', dueNs, index, queue, used, irqVectors };
}

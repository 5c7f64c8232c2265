/** One row of the message table. */
import type { FieldKind } from './field-kind.ts';

/** Host and guest share one channel, the two hosts of a migration another. */
export type Sender = 'host' | 'guest' | 'source' | 'destination';

export interface Shape {
  readonly id: number;
  readonly group: 'session' | 'vcpu' | 'console' | 'virtio' | 'memory' | 'migration' | 'oracle';
  /** Who may send it; `both`: each side, of either channel. */
  readonly from: Sender | 'both';
  readonly fields: Readonly<Record<string, FieldKind>>;
  readonly doc: string;
}

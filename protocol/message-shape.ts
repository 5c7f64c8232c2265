/** One row of the message table. */
import type { FieldKind } from './field-kind.ts';

export interface Shape {
  readonly id: number;
  readonly group: 'session' | 'vcpu' | 'console' | 'virtio' | 'memory' | 'oracle';
  /** Who may send it. */
  readonly from: 'host' | 'guest' | 'both';
  readonly fields: Readonly<Record<string, FieldKind>>;
  readonly doc: string;
}

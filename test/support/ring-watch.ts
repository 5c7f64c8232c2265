/** What of a ring's memory is read and written, in order: DataView is how both sides get at it. */
import { vi } from 'vitest';

export interface Access {
  readonly kind: 'read' | 'write';
  /** Byte in the watched view. */
  readonly offset: number;
}

const READS = ['getUint16', 'getUint32'] as const;
const WRITES = ['setUint16', 'setUint32'] as const;

/** Runs `work` and returns every access of it to the bytes of `view`. */
export function watch(view: DataView, work: () => void): Access[] {
  const accesses: Access[] = [];
  const note = (kind: Access['kind'], target: DataView, offset: number): void => {
    const at = target.byteOffset + offset - view.byteOffset;
    if (target.buffer !== view.buffer || at < 0 || at >= view.byteLength) return;
    accesses.push({ kind, offset: at });
  };
  const spies = [
    ...READS.map((name) => {
      const original = DataView.prototype[name];
      return vi.spyOn(DataView.prototype, name).mockImplementation(function (
        this: DataView,
        offset: number,
        littleEndian?: boolean,
      ) {
        note('read', this, offset);
        return original.call(this, offset, littleEndian);
      });
    }),
    ...WRITES.map((name) => {
      const original = DataView.prototype[name];
      return vi.spyOn(DataView.prototype, name).mockImplementation(function (
        this: DataView,
        offset: number,
        value: number,
        littleEndian?: boolean,
      ) {
        note('write', this, offset);
        original.call(this, offset, value, littleEndian);
      });
    }),
  ];
  try {
    work();
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
  return accesses;
}

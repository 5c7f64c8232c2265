import { PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { AvailCursor } from '../virtio/queue.ts';

/**
 * Whether the chain under the cursor has a segment that cannot be mapped: QEMU maps memory that is
 * not RAM through one bounce buffer of a page, and no more.
 */
export function hasUnmapped(
  { inStart, inCount, inGpa, inBytes }: AvailCursor,
  ramPages: number,
): boolean {
  const ramBytes = ramPages * PAGE_SIZE_BYTES;
  for (let i = inStart; i < inStart + inCount; i++) {
    const end = inGpa[i]! + inBytes[i]!;
    if (end > ramBytes && end - Math.max(ramBytes, inGpa[i]!) > PAGE_SIZE_BYTES) return true;
  }
  return false;
}

/**
 * The snapshot interface proposed in 2017 (record_unused_pages, virtio-balloon series v8), kept
 * with its traits: one lock hold for a whole order, and a size check that counts blocks where it
 * should count words. It is here to be measured against the iterator.
 */

import { type Costs, Errno, type Nanoseconds, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { MIGRATE_TYPES } from './migratetype.ts';
import type { PageAllocator } from './page-allocator.ts';
import { MAX_PAGE_ORDER } from './pages.ts';
import type { Zone } from './zone.ts';

/** A chunk is two le64: base and size, each 52 bits above 12 reserved bits, which are zero. */
export const LE64_PER_CHUNK = 2;

export interface RecordedUnusedPages {
  /** OK, EINVAL, or ENOSPC: what fitted before the end of the buffer is there even so. */
  readonly status: Errno;
  /** Where the next chunk goes, in le64. */
  readonly offset: number;
  readonly nodesVisited: number;
  /** How long the zone lock was held, interrupts off. */
  readonly holdNs: Nanoseconds;
  readonly validUntil: 'lock dropped';
  readonly generation: number;
}

/** Records the free blocks of one order of one zone into `buf`, from `offset` (in le64) on. */
export function recordUnusedPages(
  mm: PageAllocator,
  costs: Costs,
  zone: Zone,
  order: number,
  buf: BigUint64Array | DataView,
  offset: number,
  partFill: boolean,
): RecordedUnusedPages {
  const sizeLe64 = buf.byteLength >>> 3;
  const result = (status: Errno, at: number, nodesVisited: number): RecordedUnusedPages => ({
    status,
    offset: at,
    nodesVisited,
    holdNs: status === Errno.EINVAL ? 0 : costs.zoneLockNs + nodesVisited * costs.listNodeNs,
    validUntil: 'lock dropped',
    generation: zone.generation,
  });
  const isOrder = Number.isInteger(order) && order >= 0 && order <= MAX_PAGE_ORDER;
  const isOffset = Number.isInteger(offset) && offset >= 0 && offset <= sizeLe64;
  if (!isOrder || !isOffset || sizeLe64 === 0) return result(Errno.EINVAL, offset, 0);
  // In blocks, not in words: too small a buffer may pass here and still end with ENOSPC below.
  if (!partFill && offset + zone.nrFree[order]! > sizeLe64) {
    return result(Errno.ENOSPC, offset, 0);
  }
  const view = new DataView(buf.buffer, buf.byteOffset, buf.byteLength);
  const { next } = mm.pages;
  let at = offset;
  let nodes = 0;
  for (let type = 0; type < MIGRATE_TYPES; type++) {
    const head = mm.freeLists.headOf(zone, order, type);
    for (let node = next[head]!; node !== head; node = next[node]!) {
      nodes++;
      if (at + LE64_PER_CHUNK > sizeLe64) return result(Errno.ENOSPC, at, nodes);
      setLe64(view, at << 3, node * PAGE_SIZE_BYTES);
      setLe64(view, (at + 1) << 3, (1 << order) * PAGE_SIZE_BYTES);
      at += LE64_PER_CHUNK;
    }
  }
  return result(Errno.OK, at, nodes);
}

/** Two halves instead of a bigint: this runs once for each free block. */
function setLe64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value >>> 0, true);
  view.setUint32(offset + 4, Math.floor(value / 2 ** 32), true);
}

/** Gives the guest the memory that its destination holds, in place of what it had at the source. */
import type { DestinationMemory } from '../migration/destination-memory.ts';
import type { Vmm } from '../vmm.ts';

/** Bytes of records in one message: a frame holds 64 MiB. */
const PIECE_BYTES = 8 * 1024 * 1024;

/** Resolves when the guest has it all; it must not run meanwhile. */
export async function loadRam(vmm: Vmm, memory: DestinationMemory): Promise<void> {
  const { pageCount, recordSizeBytes, backed } = memory;
  // A piece begins at a whole byte of the bitmap.
  const pieceMax = PIECE_BYTES / recordSizeBytes;
  for (let first = 0; first < pageCount; first += pieceMax) {
    const count = Math.min(pieceMax, pageCount - first);
    vmm.post({
      name: 'loadRam',
      first_pfn: first,
      backed: backed.bytes.subarray(first / 8, Math.ceil((first + count) / 8)),
      data: memory.recordsOf(first, count),
    });
    // One at a time, so that a frame stays small.
    await vmm.settle();
  }
}

/**
 * The dirty log as the migration thread reads it: who clears it, and when. One file has each way;
 * reference for their order is qemu migration/ram.c with accel/kvm/kvm-all.c.
 */
import type { Bitmap, Pfn } from '../../shared/index.ts';
import type { MigrationThread } from './thread.ts';

export interface MigrationLog {
  /** Logging starts. */
  start(): void;
  stop(): void;
  /** Pages that may have changed since the last sync. */
  sync(): MigrationThread<Bitmap>;
  /** The id of a round is about to be issued. */
  beforeRound(): MigrationThread;
  /** Records of these pages are about to be read. */
  beforeSend(first: Pfn, pageCount: number): void;
  /** These pages are about to be taken out of the migration bitmap by a hint. */
  beforeHint(first: Pfn, pageCount: number): void;
  /** False: a hint of this page could undo a write, and is not taken. */
  mayTakeHint(pfn: Pfn): boolean;
}

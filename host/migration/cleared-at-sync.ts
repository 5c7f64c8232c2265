/**
 * A log that is cleared in the same step in which it is read: QEMU's own with TCG, KVM's without
 * manual protect, and KVM's dirty ring. A write after the sync always leaves its bit, so no hint can
 * undo it.
 */
import { DIRTY_RING_ENTRIES } from '../../protocol/index.ts';
import type { Bitmap } from '../../shared/index.ts';
import type { MigrationLog } from './migration-log.ts';
import { type MigrationMachine, type MigrationThread, readDirtyLog } from './thread.ts';

export class ClearedAtSync implements MigrationLog {
  readonly #machine: MigrationMachine;
  readonly #hasRing: boolean;

  constructor(machine: MigrationMachine, hasRing: boolean) {
    this.#machine = machine;
    this.#hasRing = hasRing;
  }

  start(): void {
    this.#enable(true);
  }

  stop(): void {
    this.#enable(false);
  }

  *sync(): MigrationThread<Bitmap> {
    return yield* readDirtyLog(true);
  }

  *beforeRound(): MigrationThread {}

  beforeSend(): void {}

  beforeHint(): void {}

  mayTakeHint(): boolean {
    return true;
  }

  #enable(enabled: boolean): void {
    const ring_entries = this.#hasRing ? DIRTY_RING_ENTRIES : 0;
    this.#machine.post({ name: 'dirtyLogEnable', enabled, initially_set: false, ring_entries });
  }
}

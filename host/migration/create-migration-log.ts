import type { DirtyLogParams } from '../../protocol/index.ts';
import type { Bitmap } from '../../shared/index.ts';
import { ClearedAtSync } from './cleared-at-sync.ts';
import { ClearedByChunks } from './cleared-by-chunks.ts';
import type { MigrationLog } from './migration-log.ts';
import type { MigrationMachine } from './thread.ts';

/** `ram`: the frames that hold RAM. */
export function createMigrationLog(
  params: DirtyLogParams,
  machine: MigrationMachine,
  ram: Bitmap,
): MigrationLog {
  return params.dirtyLog === 'kvm-bitmap'
    ? new ClearedByChunks(machine, ram, params)
    : new ClearedAtSync(machine, params.dirtyLog === 'kvm-ring');
}

/** What the laboratory may wait for: asked after every event of the machine, so that nobody polls. */
import type { RunEnd } from '../protocol/index.ts';
import type { Migration } from './migration/migration.ts';
import type { Vmm } from './vmm.ts';

/** `migration`: the last one, whether it is over or not. */
export function endTest(
  end: RunEnd | null,
  { device }: Pick<Vmm, 'device'>,
  migration: Migration | null,
): () => boolean {
  const isOver = (): boolean => migration === null || migration.isOver;
  switch (end?.kind) {
    case undefined:
      return () => false;
    case 'migration':
      return isOver;
    case 'pass':
      return () => isOver() || migration!.precopy.passes >= end.pass;
    case 'switchover':
      return () => isOver() || migration!.precopy.hasStopped;
    case 'balloon':
      return () => device.actualPages === device.targetPages;
    case 'hint':
      return () => !device.hintingAwaitsDriver;
  }
}

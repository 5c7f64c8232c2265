/** Runs the migration thread on a machine whose guest is at the other end of a channel. */
import type { MigrateParams, MigrationFigures } from '../../protocol/index.ts';
import { TAG_RECORD_BYTES } from '../memory/records.ts';
import type { Vmm } from '../vmm.ts';
import { Precopy, type PrecopyOptions } from './precopy.ts';
import type {
  MigrationReply,
  MigrationRequest,
  MigrationThread,
  MigrationWatcher,
} from './thread.ts';

/** Who watches a migration and may ask the guest what it does. */
export interface MigrationObserver extends MigrationWatcher {
  /** A round began under this id, right after the sync. */
  roundStarted(cmdId: number): Promise<void>;
  /** All hints of one notification were applied. */
  hintsApplied(): Promise<void>;
  /** Time is about to pass: what was sent is on its way. */
  sliceSent?(): Promise<void>;
}

/**
 * One migration; the vCPUs are stopped when it resolves with status completed.
 * @throws BallastError of the channel, which the thread has seen as well.
 */
export async function migrate(
  vmm: Vmm,
  params: MigrateParams,
  observer: MigrationObserver,
  options: Pick<PrecopyOptions, 'neverResendHinted'> = {},
): Promise<{ precopy: Precopy; figures: MigrationFigures }> {
  const precopy = new Precopy(vmm, params, observer, { ...options, ...sliceOf(vmm) });
  vmm.hintConsumer = {
    onHint: (firstPfn, pageCount, origin) => precopy.applyHint(firstPfn, pageCount, origin),
    afterHints: () => observer.hintsApplied(),
  };
  try {
    return { precopy, figures: await drive(precopy.run(), vmm, observer) };
  } finally {
    vmm.hintConsumer = null;
  }
}

/** A slice of whole pages is worth reading only as far as it is sent. */
const WHOLE_PAGES_PER_SLICE = 512;

function sliceOf({ records }: Vmm): Pick<PrecopyOptions, 'slicePagesMax'> {
  return records.recordSizeBytes === TAG_RECORD_BYTES
    ? {}
    : { slicePagesMax: WHOLE_PAGES_PER_SLICE };
}

async function drive<T>(
  thread: MigrationThread<T>,
  vmm: Vmm,
  observer: MigrationObserver,
): Promise<T> {
  let step = thread.next();
  while (!step.done) {
    // Nobody else runs here, so there is nothing to let in between.
    if (step.value.kind === 'preempt') {
      step = thread.next();
      continue;
    }
    let reply: MigrationReply;
    try {
      reply = await answer(step.value, vmm, observer);
    } catch (error) {
      step = thread.throw(error);
      continue;
    }
    step = thread.next(reply);
  }
  return step.value;
}

/** What the machine answers to one request of the thread. */
export async function answer(
  request: Exclude<MigrationRequest, { kind: 'preempt' }>,
  vmm: Vmm,
  observer: MigrationObserver,
): Promise<MigrationReply> {
  switch (request.kind) {
    case 'advanceTo':
      await observer.sliceSent?.();
      await vmm.advanceTo(request.atNs);
      return undefined;
    case 'dirtyLog':
      return vmm.getDirtyLog(request.clear);
    case 'records':
      return vmm.readRecords(request.ranges);
    case 'roundStarted':
      await observer.roundStarted(request.cmdId);
      return undefined;
  }
}

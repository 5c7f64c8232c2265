import type { Nanoseconds, Prng } from '../../shared/index.ts';
import type { Recording } from '../../shared/recording/index.ts';
import type { Workload } from '../kernel/scheduler.ts';
import type { Ram } from '../machine/ram.ts';
import type { PageAllocator } from '../mm/index.ts';
import { InPlaceDirty } from './in-place.ts';
import { KernelTicks, workingSetOf } from './kernel-pages.ts';
import { MergedWorkload } from './merged.ts';
import { Replay, type ReplayHooks } from './replay.ts';

/** A recording as a workload that starts now: its events, and its rewriting in place if it says so. */
export function startReplay(
  recording: Recording,
  machine: { mm: PageAllocator; ram: Ram; vcpus: number; startNs: Nanoseconds; prng: Prng },
  hooks: Pick<ReplayHooks, 'audit'> = {},
): { replay: Replay; workload: Workload } {
  const { inPlaceDirty, frameCount } = recording.header;
  const ticks = new KernelTicks(machine.ram, workingSetOf(recording), machine.startNs);
  if (!inPlaceDirty) {
    const replay = new Replay(recording, machine, hooks);
    return { replay, workload: new MergedWorkload([replay, ticks]) };
  }
  const inPlace = new InPlaceDirty({ ...inPlaceDirty, frameCount }, machine);
  const replay = new Replay(recording, machine, {
    ...hooks,
    onUserPage: (pfn, live) => inPlace.onUserPage(pfn, live),
  });
  return { replay, workload: new MergedWorkload([replay, inPlace, ticks]) };
}

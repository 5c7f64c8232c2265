import type { Nanoseconds, Prng } from '../../shared/index.ts';
import type { Recording } from '../../shared/recording/index.ts';
import type { Folios } from '../folio/index.ts';
import type { Ram } from '../machine/ram.ts';
import type { Workload } from '../sched/scheduler.ts';
import { InPlaceDirty } from './in-place.ts';
import { KernelTicks, workingSetOf } from './kernel-pages.ts';
import { MergedWorkload } from './merged.ts';
import { Replay, type ReplayHooks } from './replay.ts';

export interface StartedReplay {
  readonly replay: Replay;
  /** Everything that writes memory while the recording runs. */
  readonly workload: Workload;
  /** Of the parts, live. */
  readonly counters: readonly Readonly<Record<string, number>>[];
}

/** A recording as a workload that starts now: its events, and its rewriting in place if it says so. */
export function startReplay(
  recording: Recording,
  machine: { folios: Folios; ram: Ram; vcpus: number; startNs: Nanoseconds; prng: Prng },
  hooks: Pick<ReplayHooks, 'audit'> = {},
): StartedReplay {
  const { inPlaceDirty, frameCount } = recording.header;
  const ticks = new KernelTicks(machine.ram, workingSetOf(recording), machine.startNs);
  if (!inPlaceDirty) {
    const replay = new Replay(recording, machine, hooks);
    const workload = new MergedWorkload([replay, ticks]);
    return { replay, workload, counters: [replay.counters] };
  }
  const inPlace = new InPlaceDirty({ ...inPlaceDirty, frameCount }, machine);
  const replay = new Replay(recording, machine, {
    ...hooks,
    onUserPage: (pfn, live) => inPlace.onUserPage(pfn, live),
  });
  const workload = new MergedWorkload([replay, inPlace, ticks]);
  return { replay, workload, counters: [replay.counters, inPlace.counters] };
}

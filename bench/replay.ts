/** Replay events a second: the guest's side alone, kernel, allocator, RAM and scheduler. */
import { fileURLToPath } from 'node:url';
import { Guest } from '../guest/machine/guest.ts';
import type { Message } from '../protocol/index.ts';
import { assert, NS_PER_S } from '../shared/index.ts';
import { type Recording, readRecording } from '../shared/recording/index.ts';
import { type Bench, type Figure, sample } from './figure.ts';
import { guestConfigOf } from './process/guest-machine.ts';

const RECORDINGS = ['idle-1g', 'churn-1g'] as const;
/** Far behind the end of every recording. */
const END_NS = 3_600 * NS_PER_S;

export const benchReplay: Bench = async ({ runs, progress }) => {
  const figures: Figure[] = [];
  for (const name of RECORDINGS) {
    progress(name);
    const path = fileURLToPath(new URL(`../scenarios/recordings/${name}.ballast`, import.meta.url));
    const recording = readRecording(path);
    const { events } = await sample(runs, { events: () => replayRate(recording) });
    figures.push({
      bench: 'replay',
      name: `events of ${name}`,
      unit: 'M/s',
      samples: events,
      target: { of: 'value', atLeast: 1 },
    });
  }
  return figures;
};

function replayRate(recording: Recording): number {
  const { frameCount, vcpus } = recording.header;
  const guest = new Guest({ ...guestConfigOf(frameCount), vcpus, strategy: 'none' }, recording);
  withoutDevice(guest);
  const start = performance.now();
  guest.handle([
    { name: 'console', line: 'replay' },
    { name: 'run', until_ns: END_NS, notify_ns: 0 },
  ]);
  const us = (performance.now() - start) * 1e3;
  const events = counterOf(guest, 'replay_events');
  assert(events === recording.events.count, 'every event was replayed');
  return events / us;
}

/** Lets the driver find that there is no balloon: the guest then needs nobody to run. */
function withoutDevice(guest: Guest): void {
  const run: Message = { name: 'run', until_ns: 1, notify_ns: 0 };
  const info: Message = { name: 'deviceInfo', device_id: 0, queue_count: 0, config_size: 0 };
  guest.handle([run]);
  guest.handle([info, run]);
  guest.handle([{ name: 'status', status: 0 }, run]);
}

function counterOf(guest: Guest, name: string): number {
  const [reply] = guest.handle([{ name: 'getStatistics' }]);
  const counters = reply?.name === 'statistics' ? reply.counters : [];
  return Number(counters[counters.indexOf(name) + 1]);
}

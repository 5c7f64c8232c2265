import { mkdirSync, rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import type { Address } from '../../protocol/control.ts';
import type { Plan } from '../plan/plan.ts';
import { guestConfigOf, hostConfigOf, type LogPlace, linuxConfigOf } from '../plan/processes.ts';
import type { Entries } from '../process/child.ts';
import { onExit, removeFolder } from '../process/cleanup.ts';
import { Control, type Progress } from './control.ts';
import { Destinations } from './destination.ts';
import { Machine } from './machine.ts';

/** From the plan of a machine to its processes. */

/** Where the processes of a machine meet, and what they leave behind: nothing that changes a figure. */
export interface Placement {
  /** Folder for host.log and guest.log; default: only the digests are kept. */
  readonly logDirectory?: string;
  /** The host of the first migration starts with the pair, and not when it is needed. */
  readonly startsDestination?: boolean;
  /** Migrations go to a host that was started by hand, at this address; the guest is gone then. */
  readonly migrateTo?: Address;
  /** Be the destination of a migration: wait at this address for its source, and at `listen` for the guest. */
  readonly incoming?: Address;
  /** Where the processes meet. Default: a unix socket in a new folder of the temporary directory. */
  readonly listen?: Address;
  /** Starts no guest: one started by hand connects to `listen`. Called when the host listens. */
  readonly onListening?: (address: Address) => void;
  readonly onProgress?: (progress: Progress) => void;
}

/**
 * Starts both processes and waits for their hello; `boot()` is the caller's.
 * @throws BallastError when a file is missing, the address is in use or a process dies at start.
 */
export async function startMachine(
  plan: Plan,
  placement: Placement = {},
  entries?: Entries,
): Promise<Machine> {
  const place: LogPlace = { logDirectory: placement.logDirectory ?? null };
  if (place.logDirectory !== null) mkdirSync(place.logDirectory, { recursive: true });
  const folder = placement.listen ? null : await mkdtemp(`${tmpdir()}/ballast-`);
  const address = placement.listen ?? { kind: 'unix', path: `${folder}/guest.sock` };
  const config = hostConfigOf(plan, address, place);
  const control = new Control(placement.onProgress ?? (() => {}), entries);
  const destinations = new Destinations(
    control,
    (index) => hostConfigOf(plan, address, place, `host-${index + 1}`),
    placement.migrateTo ?? null,
  );
  // A host that ends while it listens leaves its socket file behind; one of ours, from `bound` on.
  let socketFile: string | null = null;
  const removeSocket = () => {
    if (socketFile) rmSync(socketFile, { force: true });
    if (folder) removeFolder(folder);
  };
  const withdraw = onExit(() => {
    control.kill();
    removeSocket();
  });
  const dispose = async () => {
    await destinations.drop();
    await control.stop();
    removeSocket();
    withdraw();
  };
  try {
    if (placement.incoming) {
      const bound = await control.call('incoming', { config, stream: placement.incoming });
      placement.onListening?.(bound.stream);
      const arrival = await control.call('arrive', null);
      return new Machine(control, plan, destinations, dispose, arrival);
    }
    const bound = await control.call('listen', config);
    if (bound.kind === 'unix') socketFile = bound.path;
    if (placement.onListening) placement.onListening(bound);
    else startGuest(control, plan, place, bound);
    if (placement.startsDestination) destinations.prepare();
    await control.call('accept', null);
    if (placement.startsDestination) await destinations.stream();
    // The connection outlives its name, so nothing can be left behind from here on.
    socketFile = null;
    if (folder) removeFolder(folder);
    return new Machine(control, plan, destinations, dispose);
  } catch (error) {
    await dispose();
    throw error;
  }
}

function startGuest(control: Control, plan: Plan, place: LogPlace, connect: Address): void {
  const config = plan.linux ? linuxConfigOf(plan, plan.linux) : guestConfigOf(plan, place);
  control.startGuest(plan.linux ? 'linux' : 'guest').send({ connect, config } as never);
}

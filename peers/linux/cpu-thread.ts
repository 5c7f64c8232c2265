/** The thread of the guest's processor: it may sleep in the middle of an instruction. */
import { parentPort, workerData } from 'node:worker_threads';
import { BallastError } from '../../shared/index.ts';
import { type BootOptions, bootMachine, createEmptyMachine } from './boot.ts';
import { READY, type ThreadFailure, ThreadFramePort } from './frame-port.ts';
import { LinuxGuest } from './linux-guest.ts';
import type { X86Machine } from './x86-machine.ts';

/** What RAM of a machine holds that nothing was received for yet: no guest writes this everywhere. */
const UNRECEIVED_BYTE = 0xdb;

export interface CpuThreadStart extends BootOptions {
  readonly arrivals: Int32Array;
  /** Its RAM and its state come from the host. */
  readonly incoming: boolean;
}

async function main(): Promise<void> {
  if (!parentPort) throw new RangeError('started as a thread');
  const start = workerData as CpuThreadStart;
  const port = new ThreadFramePort(parentPort, start.arrivals);
  let guest: LinuxGuest | null = null;
  const attach = (machine: X86Machine): void => {
    guest = new LinuxGuest(machine, port);
  };
  if (start.incoming) attach(await createEmptyMachine(start));
  else await bootMachine(start, attach);
  const made = guest as LinuxGuest | null;
  if (start.incoming) made?.memory.fill(UNRECEIVED_BYTE);
  parentPort.postMessage(READY);
  await made?.serve();
}

main().catch((error: unknown) => {
  if (!(error instanceof BallastError)) throw error;
  const { code, message } = error;
  parentPort?.postMessage({ code, message } satisfies ThreadFailure);
});

/** The thread of the guest's processor: it may sleep in the middle of an instruction. */
import { parentPort, workerData } from 'node:worker_threads';
import { BallastError } from '../../shared/index.ts';
import { type BootOptions, bootMachine } from './boot.ts';
import { READY, type ThreadFailure, ThreadFramePort } from './frame-port.ts';
import { LinuxGuest } from './linux-guest.ts';
import type { X86Machine } from './x86-machine.ts';

/** Boot parameters of kernels that rely on what their free pages hold. */
const TRUSTS_FREE_PAGES = /\b(init_on_free|page_poison)=(1|on)\b/;

export interface CpuThreadStart extends BootOptions {
  readonly arrivals: Int32Array;
}

async function main(): Promise<void> {
  if (!parentPort) throw new RangeError('started as a thread');
  const start = workerData as CpuThreadStart;
  const port = new ThreadFramePort(parentPort, start.arrivals);
  let guest: LinuxGuest | null = null;
  const attach = (machine: X86Machine): void => {
    guest = new LinuxGuest(machine, port, TRUSTS_FREE_PAGES.test(start.kernelArguments));
  };
  await bootMachine(start, attach);
  const made = guest as LinuxGuest | null;
  parentPort.postMessage(READY);
  await made?.serve();
}

main().catch((error: unknown) => {
  if (!(error instanceof BallastError)) throw error;
  const { code, message } = error;
  parentPort?.postMessage({ code, message } satisfies ThreadFailure);
});

/** The process of a Linux guest: its channel here, its processor in a thread beside. */
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import {
  type Address,
  connect,
  type GuestFacts,
  GuestHome,
  type LinuxGuestConfig,
  type Message,
  serveAsyncGuest,
} from '../../protocol/index.ts';
import {
  BallastError,
  type BallastErrorCode,
  ExitStatus,
  PAGE_SIZE_BYTES,
} from '../../shared/index.ts';
import { exitWith, onLaboratoryGone } from '../../shared/process.ts';
import { findPeers, type LinuxPeer } from '../fetch/index.ts';
import type { CpuThreadStart } from './cpu-thread.ts';
import { ProcessorThread, READY, type ThreadFailure } from './frame-port.ts';
import { ramSegments } from './guest-memory.ts';

const CONNECT_TIMEOUT_MS = 10_000;

interface Start {
  readonly connect: Address;
  readonly config: LinuxGuestConfig;
}

async function main({ connect: address, config }: Start): Promise<void> {
  const { linux, missing } = findPeers();
  if (!linux) {
    throw new BallastError('FILE_MISSING', `guest linux: ${missing.at(-1)}`);
  }
  const memoryBytes = config.ramPages * PAGE_SIZE_BYTES;
  const arrivals = new Int32Array(new SharedArrayBuffer(4));
  const start: CpuThreadStart = {
    peer: linux,
    memoryBytes,
    kernelArguments: config.kernelArguments,
    snapshotPath: config.keepBooted ? snapshotPath(linux, config) : null,
    arrivals,
  };
  const worker = startThread(start);
  worker.on('error', (error) => exitWith('guest', error));
  await ready(worker);
  const processor = new ProcessorThread(worker, arrivals);
  const facts: GuestFacts = {
    recordSizeBytes: PAGE_SIZE_BYTES,
    ramPages: config.ramPages,
    ramSegments: ramSegments(memoryBytes),
    vcpus: 1,
    plan: config.plan ?? [],
  };
  const socket = await connect(address, CONNECT_TIMEOUT_MS);
  const ask = (messages: Message[]) => processor.ask(messages);
  const home = new GuestHome(ask, facts, serveAsyncGuest);
  home.enter(socket);
  const error = await home.closed;
  if (error) throw error;
  process.exit(ExitStatus.OK);
}

const fromSources = import.meta.url.endsWith('.ts');

function startThread(workerData: CpuThreadStart): Worker {
  const url = new URL(`./cpu-thread.${fromSources ? 'ts' : 'js'}`, import.meta.url);
  if (!fromSources) return new Worker(url, { workerData });
  // A thread does not inherit the loader for sources.
  const loader = JSON.stringify(import.meta.resolve('tsx/esm/api'));
  const code = `import(${loader}).then(({ register }) => (register(), import('${url.href}')))`;
  return new Worker(code, { eval: true, workerData });
}

function ready(worker: Worker): Promise<void> {
  return new Promise((resolve, reject) => {
    worker.once('message', (said: typeof READY | ThreadFailure) => {
      if (said === READY) resolve();
      else reject(new BallastError(said.code as BallastErrorCode, said.message));
    });
  });
}

/** One for each kernel, command line, size and version of what boots it. */
function snapshotPath(peer: LinuxPeer, config: LinuxGuestConfig): string {
  const hash = createHash('sha256');
  for (const path of [peer.kernel, peer.busybox, peer.bios]) {
    const { size, mtimeMs } = statSync(path);
    hash.update(`${path} ${size} ${mtimeMs}\n`);
  }
  for (const name of ['boot', 'initramfs', 'x86-machine', 'v86', 'pci-space']) {
    const file = `./${name}.${fromSources ? 'ts' : 'js'}`;
    hash.update(readFileSync(new URL(file, import.meta.url)));
  }
  hash.update(`${config.ramPages} ${config.kernelArguments}`);
  const cache = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  return join(cache, 'ballast/linux', `${hash.digest('hex').slice(0, 16)}.booted`);
}

process.once('message', (start: Start) => {
  main(start).catch((error: unknown) => exitWith('guest', error));
});
onLaboratoryGone(() => process.exit(ExitStatus.OK));
if (!process.send) {
  exitWith(
    'guest',
    new BallastError('BAD_INPUT', 'started alone: expected to be started by `ballast`'),
  );
}

/**
 * From power-on to a shell that listens: the machine with its kernel, once; afterwards the same from
 * a snapshot of that moment, which takes a tenth of the time.
 */
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { deserialize, serialize } from 'node:v8';
import { BallastError, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { LinuxPeer } from '../fetch/index.ts';
import { buildInitramfs } from './initramfs.ts';
import { X86Machine } from './x86-machine.ts';

/** The kernel follows its timers, not the computer's; a slow computer only takes longer. */
const BOOT_LIMIT_MS = 120_000;
const SLICES_PER_TURN = 16;
/** Some tens of megabytes each. */
const SNAPSHOTS_KEPT = 8;
/** Whatever the guest is to do, it boots like this: quickly, and with its log on the first serial port. */
const COMMAND_LINE =
  'console=ttyS0 quiet loglevel=4 tsc=reliable mitigations=off cryptomgr.notests=1 noisapnp nokaslr';

export interface BootOptions {
  readonly peer: LinuxPeer;
  readonly memoryBytes: number;
  /** More arguments for the kernel. */
  readonly kernelArguments: string;
  /** Where the booted machine is kept; null: nowhere. */
  readonly snapshotPath: string | null;
}

interface Snapshot {
  readonly x86: Uint8Array;
  readonly pfns: Uint32Array;
  readonly records: Uint8Array;
}

/** A machine without a kernel; `attach` plugs the devices in before anything runs. */
export function createEmptyMachine(
  options: Pick<BootOptions, 'peer' | 'memoryBytes'>,
): Promise<X86Machine> {
  const { memoryBytes, peer } = options;
  return X86Machine.create({ memoryBytes, bios: readFileSync(peer.bios), kernel: null });
}

/** Resolves when the agent listens. @throws BallastError PEER_CLOSED with what the kernel said last. */
export async function bootMachine(
  options: BootOptions,
  attach: (machine: X86Machine) => void,
): Promise<X86Machine> {
  const { snapshotPath } = options;
  const snapshot = snapshotPath === null ? null : readSnapshot(snapshotPath);
  if (snapshot) {
    const machine = await createEmptyMachine(options);
    attach(machine);
    restore(machine, snapshot);
    return machine;
  }
  const { kernelArguments, memoryBytes, peer } = options;
  const machine = await X86Machine.create({
    memoryBytes,
    bios: readFileSync(peer.bios),
    kernel: {
      bzImage: readFileSync(peer.kernel),
      initrd: buildInitramfs({ busyboxPath: peer.busybox, modulesDir: peer.modulesDir }),
      commandLine: `${COMMAND_LINE} ${kernelArguments}`,
    },
  });
  attach(machine);
  await runUntilReady(machine);
  if (snapshotPath !== null) keep(machine, snapshotPath);
  return machine;
}

async function runUntilReady(machine: X86Machine): Promise<void> {
  for (let slices = 1; machine.takeOutput() === null; slices++) {
    machine.runSlice(BOOT_LIMIT_MS);
    if (slices % SLICES_PER_TURN === 0) await new Promise((resolve) => setImmediate(resolve));
    if (machine.nowMs >= BOOT_LIMIT_MS) {
      const said = machine.consoleText.split('\n').slice(-5).join(' ');
      throw new BallastError('PEER_CLOSED', `the kernel did not reach its shell: ${said}`);
    }
  }
}

function keep(machine: X86Machine, path: string): void {
  const { memory } = machine;
  const pfns: number[] = [];
  const zero = Buffer.alloc(PAGE_SIZE_BYTES);
  const ram = Buffer.from(memory.buffer, memory.byteOffset, memory.length);
  for (let at = 0; at < ram.length; at += PAGE_SIZE_BYTES) {
    if (zero.compare(ram, at, at + PAGE_SIZE_BYTES) !== 0) pfns.push(at / PAGE_SIZE_BYTES);
  }
  const records = new Uint8Array(pfns.length * PAGE_SIZE_BYTES);
  for (const [i, pfn] of pfns.entries()) {
    const start = pfn * PAGE_SIZE_BYTES;
    records.set(memory.subarray(start, start + PAGE_SIZE_BYTES), i * PAGE_SIZE_BYTES);
  }
  const snapshot: Snapshot = { x86: machine.saveState(), pfns: Uint32Array.from(pfns), records };
  mkdirSync(dirname(path), { recursive: true });
  // Whoever looks sees none or all of it.
  const unfinished = `${path}.${process.pid}`;
  writeFileSync(unfinished, serialize(snapshot));
  renameSync(unfinished, path);
  dropOld(dirname(path));
}

/** null: there is none, or none that can be read. */
function readSnapshot(path: string): Snapshot | null {
  try {
    return deserialize(readFileSync(path)) as Snapshot;
  } catch {
    return null;
  }
}

/** Each is of one version of kernel and code; nobody will ask for the oldest again. */
function dropOld(folder: string): void {
  const paths = readdirSync(folder).map((name) => join(folder, name));
  const newestFirst = paths.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs);
  for (const path of newestFirst.slice(SNAPSHOTS_KEPT)) rmSync(path, { force: true });
}

function restore(machine: X86Machine, { x86, pfns, records }: Snapshot): void {
  const { memory } = machine;
  memory.fill(0);
  for (const [i, pfn] of pfns.entries()) {
    const at = i * PAGE_SIZE_BYTES;
    memory.set(records.subarray(at, at + PAGE_SIZE_BYTES), pfn * PAGE_SIZE_BYTES);
  }
  machine.restoreState(x86);
}

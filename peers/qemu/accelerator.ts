/** What runs QEMU's vCPU, and whose log of dirty pages its migrations read. */
import { accessSync, constants } from 'node:fs';
import { DIRTY_RING_ENTRIES } from '../../protocol/dirty-log.ts';
import type { DirtyLogPolicy } from '../../protocol/index.ts';
import { MIB, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { type QemuAccelerator, QemuProcess, type QemuProgram } from './process.ts';
import { WritingVcpu, writerFirmware } from './writer.ts';

/** That of KVM without manual protect cannot be asked for: it is what an old kernel has. */
export const ACCELERATORS: Readonly<Partial<Record<DirtyLogPolicy, QemuAccelerator>>> = {
  tcg: 'tcg',
  'kvm-bitmap': 'kvm',
  'kvm-ring': `kvm,dirty-ring-size=${DIRTY_RING_ENTRIES}`,
};

const KVM = '/dev/kvm';
const PROBE_GPA = 16 * MIB;
/** A KVM that hangs is none. */
const PROBE_START_MS = 5000;
const PROBE_VALUE = 0x1234_5678;

/**
 * Why QEMU cannot run our firmware with it here, one line; null: it can. A virtual machine's own KVM
 * may exist and still not run the first instructions of a processor, so it is tried.
 */
export async function troubleWith(
  program: QemuProgram,
  accelerator: QemuAccelerator,
): Promise<string | null> {
  try {
    if (accelerator !== 'tcg') accessSync(KVM, constants.R_OK | constants.W_OK);
    await using qemu = await QemuProcess.start(program, {
      transport: 'mmio',
      ramPages: (32 * MIB) / PAGE_SIZE_BYTES,
      balloon: {},
      accelerator,
      firmware: writerFirmware(),
      startTimeoutMs: PROBE_START_MS,
    });
    await new WritingVcpu(qemu.qtest).write(PROBE_GPA, 1, PROBE_VALUE);
    const found = await qemu.qtest.read32(PROBE_GPA);
    return found === PROBE_VALUE ? null : 'its vCPU wrote something else';
  } catch (error) {
    return (error as Error).message.split('\n', 1)[0] ?? '';
  }
}

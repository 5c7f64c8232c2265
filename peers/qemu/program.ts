import { findPeers } from '../fetch/index.ts';
import type { QemuProgram } from './process.ts';

/** @throws Error saying how to get it, if there is no QEMU. */
export function qemuProgram(): QemuProgram {
  const { qemu, missing } = findPeers();
  if (!qemu) throw new Error(missing.join('; '));
  return qemu;
}

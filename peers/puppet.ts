/** The guest of a machine under test: our kernel as it is, with nothing started in it. */
import type { SystemConfig } from '../guest/machine/system.ts';
import { DEFAULT_KERNEL_OPTIONS, type GuestConfig } from '../protocol/index.ts';
import { DEFAULT_COSTS } from '../shared/index.ts';
import { MACHINE_DEFAULTS, type MachineOptions } from './conformance-machine.ts';

export function puppetConfig(options: MachineOptions): GuestConfig & SystemConfig {
  return {
    seed: 1,
    ramPages: options.ramPages ?? MACHINE_DEFAULTS.ramPages,
    vcpus: 1,
    mm: { initOnAlloc: false, initOnFree: false, pagePoison: false, ...options.mm },
    kernel: DEFAULT_KERNEL_OPTIONS,
    strategy: options.strategy ?? 'none',
    iterate: { budgetNodes: 1000, minOrder: 0 },
    ...(options.driver ? { driver: options.driver } : {}),
    recordingPath: null,
    costs: DEFAULT_COSTS,
    auditEveryEvents: 0,
    logPath: null,
  };
}

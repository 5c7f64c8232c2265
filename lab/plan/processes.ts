import { resolve } from 'node:path';
import type { Address, GuestConfig, HostConfig, LinuxGuestConfig } from '../../protocol/control.ts';
import { agreementOf } from './agreement.ts';
import type { Plan } from './plan.ts';

/** What each process of a planned machine is told at start. */

/** Of what no plan says: which log a process writes. */
export interface LogPlace {
  /** Folder; null: only the digests are kept. */
  readonly logDirectory: string | null;
}

/** `log`: the name of its file, without the ending. */
export function hostConfigOf(
  plan: Plan,
  listen: Address,
  { logDirectory }: LogPlace,
  log = 'host',
): HostConfig {
  return {
    seed: plan.seed,
    listen,
    ramPages: plan.ramPages,
    plan: agreementOf(plan),
    device: plan.device,
    costs: plan.costs,
    logPath: logPathOf(logDirectory, log),
    plant: plan.plant,
  };
}

export function guestConfigOf(plan: Plan, { logDirectory }: LogPlace): GuestConfig {
  return {
    seed: plan.seed,
    ramPages: plan.ramPages,
    vcpus: plan.vcpus,
    mm: plan.mm,
    kernel: plan.kernel,
    strategy: plan.strategy,
    plan: agreementOf(plan),
    driver: plan.driver,
    iterate: plan.iterate,
    recordingPath: plan.recording?.path ?? null,
    costs: plan.costs,
    auditEveryEvents: plan.auditEveryEvents,
    logPath: logPathOf(logDirectory, 'guest'),
  };
}

export function linuxConfigOf(plan: Plan, linux: NonNullable<Plan['linux']>): LinuxGuestConfig {
  return { ramPages: plan.ramPages, plan: agreementOf(plan), ...linux };
}

function logPathOf(directory: string | null, name: string): string | null {
  return directory === null ? null : resolve(directory, `${name}.log`);
}

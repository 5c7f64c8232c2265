import { NS_PER_S, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { Plan } from './plan.ts';

/**
 * What the processes of a machine must have in common: each setting of the plan as a line
 * `key=value`, by the key that a scenario file has for it. Left out is what no process is made of:
 * where files lie here, and how the monitor migrates.
 */
export function agreementOf(plan: Plan): readonly string[] {
  const { movableZonePages, ...kernel } = plan.kernel;
  const { numbering, statsPollingIntervalS, quirks, ...device } = plan.device;
  const settings = {
    seed: plan.seed,
    guest: plan.guest,
    recording: plan.recording?.sha256,
    machine: { memory: plan.memoryBytes, vcpus: plan.vcpus },
    mm: { ...plan.mm, ...kernel, movable_zone: movableZonePages * PAGE_SIZE_BYTES },
    driver: plan.driver,
    strategy: plan.strategy,
    iterate: { budget: plan.iterate.budgetNodes, min_order: plan.iterate.minOrder },
    device: {
      ...device,
      queue_numbering: numbering,
      stats_interval: statsPollingIntervalS && statsPollingIntervalS * NS_PER_S,
    },
    audit_every_events: plan.auditEveryEvents,
    plant: plan.plant,
  };
  const lines = [
    ...linesOf(settings),
    // Their keys are names already.
    ...Object.entries(plan.costs).map(([name, costNs]) => `costs.${name}=${costNs}`),
    ...Object.entries(quirks ?? {}).map(([name, isOn]) => `device.quirks.${name}=${isOn}`),
    ...(plan.linux ? [`linux.kernel_arguments=${plan.linux.kernelArguments}`] : []),
  ];
  return lines.sort();
}

function linesOf(settings: object, prefix = ''): string[] {
  return Object.entries(settings).flatMap(([name, value]) => {
    const key = prefix + snakeCase(name);
    if (value === undefined) return [];
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return linesOf(value, `${key}.`);
    }
    return [`${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`];
  });
}

function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

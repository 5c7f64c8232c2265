/** The plan of a machine: a plain value, whichever way it was asked for, and what processes agree on. */
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, describe, expect, test } from 'vitest';
import { agreementOf } from '../../../../lab/plan/agreement.ts';
import type { Plan } from '../../../../lab/plan/plan.ts';
import { completeSettings, planOf } from '../../../../lab/plan/settings.ts';
import { packageRoot } from '../../../../lab/process/paths.ts';
import { resolveRecording } from '../../../../lab/recording/resolve.ts';
import { parseOverride, parseScenario } from '../../../../lab/scenario/load.ts';

async function planned(text: string, ...set: string[]): Promise<Plan> {
  const overrides = set.map(parseOverride);
  const scenario = await parseScenario('x.yaml', text, { overrides });
  return planOf(scenario, scenario.strategies[0] ?? 'none', 'x');
}

const RECORDED = 'recording: idle-1g\nstrategy: none';

describe('a plan', () => {
  test('is the same from a scenario and from a call of the library', async () => {
    const recording = await resolveRecording('idle-1g');
    const settings = completeSettings(
      { seed: 7, mm: { initOnAlloc: false }, device: { statsVq: true }, hypervisor: 'qemu-10-kvm' },
      recording,
    );
    const file = `${RECORDED}\nseed: 7\nhypervisor: qemu-10-kvm\nmm: { init_on_alloc: false }\ndevice: { stats_vq: true }`;
    expect(planOf(settings, 'none', 'x')).toEqual(await planned(file));
  });

  test('is a plain value', async () => {
    const plan = await planned(RECORDED);
    expect(JSON.parse(JSON.stringify(plan))).toEqual(plan);
  });

  test.each([
    ['iterate', { freePageHint: true, hintWaitOnAck: false }],
    ['alloc-ack', { freePageHint: true, hintWaitOnAck: true }],
    ['none', { freePageHint: false, hintWaitOnAck: false }],
  ] as const)('has the device that %s needs', (strategy, device) => {
    expect(planOf(completeSettings({}, null), strategy, 'x').device).toEqual(device);
  });

  test('leaves the device of a profile as it is', () => {
    const settings = completeSettings({ device: { profile: 'qemu-7.2' } }, null);
    expect(planOf(settings, 'alloc', 'x').device).toEqual({ profile: 'qemu-7.2' });
  });
});

describe('what the processes of a machine agree on', () => {
  const folder = mkdtempSync(`${tmpdir()}/plan-`);
  afterAll(() => rmSync(folder, { recursive: true }));

  test.each([
    'seed=2',
    'machine.vcpus=3',
    'mm.init_on_alloc=false',
    'mm.page_poison=true',
    'mm.movable_generation=pfn',
    'mm.pin_check=extra_refs',
    'mm.compaction_proactiveness=0',
    'mm.movable_zone=16MiB',
    'driver.behaviour=windows',
    'driver.decline=[stats_vq]',
    'driver.hint_trusted_free_pages=true',
    'iterate.budget=7',
    'iterate.min_order=3',
    'device.stats_vq=true',
    'device.queue_numbering=spec-fixed',
    'device.stats_interval=2s',
    'device.quirks.actual-unchecked=true',
    'device.profile=qemu-7.2',
    'costs.allocNs=1',
    'audit_every_events=100',
    'plant.accept_late_hints=true',
    'strategy=oracle',
  ])('differs in the key that a scenario sets: %s', async (set) => {
    const text =
      'machine: { memory: 64MiB }\ndevice: { free_page_hint: true, hint_wait_on_ack: true }';
    const [base, other] = [await planned(text), await planned(text, set)].map(agreementOf);
    const changed = [
      ...base!.filter((line) => !other!.includes(line)),
      ...other!.filter((line) => !base!.includes(line)),
    ];
    expect([...new Set(changed.map((line) => line.split('=')[0]))]).toEqual([set.split('=')[0]]);
  });

  test('knows a recording by its content, not by where it lies', async () => {
    const copy = `${folder}/copy.ballast`;
    copyFileSync(`${packageRoot}/scenarios/recordings/idle-1g.ballast`, copy);
    const [here, there, other] = [
      await planned(RECORDED),
      await planned(`recording: ${copy}\nstrategy: none`),
      await planned('recording: churn-1g\nstrategy: none'),
    ].map(agreementOf);
    expect(there).toEqual(here);
    expect(other).not.toEqual(here);
    expect(here!.join('\n')).not.toContain('/');
  });

  test('leaves to the monitor how it migrates', async () => {
    const slow = await planned(RECORDED, 'migration.bandwidth=1MiB/s', 'hypervisor=qemu-10-kvm');
    expect(agreementOf(slow)).toEqual(agreementOf(await planned(RECORDED)));
  });

  test('fits a hello, with everything named', async () => {
    const quirks = 'device: { profile: qemu-7.2, quirks: { actual-unchecked: false } }';
    expect(agreementOf(await planned(`${RECORDED}\n${quirks}`)).length).toBeLessThan(128);
  });
});

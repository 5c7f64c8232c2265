import { STRATEGIES } from '../../protocol/control.ts';
import type { KeyPath, Problem } from '../input/problems.ts';
import { formatBytes } from '../input/units.ts';
import { contradictionsOf } from '../plan/settings.ts';
import type { Scenario, Step } from './scenario.ts';
import type { ScenarioFile, StepFile } from './schema.ts';

/** What each key alone allows, but the whole does not. */
export function contradictions(file: ScenarioFile, scenario: Scenario): Problem[] {
  const problems = [
    ...ofMachine(scenario, []),
    ...ofLinux(file, scenario),
    ...ofVariants(file),
    ...ofSteps(file, scenario),
  ];
  scenario.variants.forEach((variant, index) => {
    if (file.variants?.[index]?.machine || file.variants?.[index]?.mm) {
      problems.push(...ofMachine(variant, ['variants', index]));
    }
  });
  if (file.strategy && file.strategies) {
    problems.push({ path: ['strategy'], expected: 'either strategy or strategies', found: 'both' });
  }
  return problems;
}

/** Keys of the file that set what a plan has under another name. */
const KEYS: Readonly<Record<string, KeyPath>> = {
  memoryBytes: ['machine', 'memory'],
  'kernel.movableZonePages': ['mm', 'movable_zone'],
};

function ofMachine(scenario: Scenario, at: KeyPath): Problem[] {
  return contradictionsOf(scenario).map((problem) => ({
    ...problem,
    path: [...at, ...(KEYS[problem.path.join('.')] ?? problem.path)],
  }));
}

/** Sections that say how the emulated kernel is made. */
const EMULATED_ONLY = ['recording', 'iterate', 'driver'] as const;
/** What a real kernel can be booted with. */
const LINUX_MM: ReadonlySet<string> = new Set(['init_on_alloc', 'init_on_free', 'page_poison']);
/** What its driver does. */
const LINUX_STRATEGIES: ReadonlySet<string> = new Set(['none', 'alloc']);

function ofLinux(file: ScenarioFile, scenario: Scenario): Problem[] {
  const shells = scenario.steps.flatMap(({ kind }, i) => (kind === 'shell' ? [i] : []));
  if (scenario.guest !== 'linux') {
    const expected = 'guest: linux, which has a shell';
    return shells.map((index) => ({ path: ['steps', index], expected, found: 'none' }));
  }
  const expected = 'no such key with guest: linux';
  const problems: Problem[] = EMULATED_ONLY.filter((key) => file[key] !== undefined).map((key) => ({
    path: [key],
    expected,
  }));
  for (const key of Object.keys(file.mm ?? {})) {
    if (!LINUX_MM.has(key)) problems.push({ path: ['mm', key], expected });
  }
  const { policy = 'default' } = scenario.migration;
  if (policy !== 'default') {
    const path = ['migration', 'policy'];
    problems.push({ path, expected: 'default with guest: linux, which nobody slows' });
  }
  if (scenario.vcpus !== 1) {
    problems.push({ path: ['machine', 'vcpus'], expected: '1 with guest: linux' });
  }
  if (scenario.strategies.some((strategy) => !LINUX_STRATEGIES.has(strategy))) {
    const path = [file.strategies ? 'strategies' : 'strategy'];
    problems.push({ path, expected: 'none or alloc with guest: linux, as its driver does' });
  }
  for (const [index, { kind }] of scenario.steps.entries()) {
    if (kind !== 'console') continue;
    const path = ['steps', index];
    problems.push({ path, expected: 'a step "shell" with guest: linux', found: 'another' });
  }
  return problems;
}

function ofVariants({ variants = [] }: ScenarioFile): Problem[] {
  return variants.flatMap(({ name }, index) => {
    const path = ['variants', index, 'name'];
    if (STRATEGIES.some((strategy) => strategy === name)) {
      return [{ path, expected: 'a name that no strategy has' }];
    }
    const isTaken = variants.slice(0, index).some((other) => other.name === name);
    return isTaken ? [{ path, expected: 'a name of its own' }] : [];
  });
}

function ofSteps(file: ScenarioFile, scenario: Scenario): Problem[] {
  const before = { booted: false, replaying: false };
  return scenario.steps.flatMap((step, index) => {
    const path = ['steps', index];
    const found = [
      ...ofOrder(step, scenario, path, before),
      ...ofBalloon(step, scenario, path),
      ...ofVcpu(step, file.steps?.[index], scenario, path),
      ...ofNames(step, scenario, path),
    ];
    before.booted = true;
    before.replaying ||= step.kind === 'workload';
    return found;
  });
}

function ofOrder(
  { kind }: Step,
  { recording }: Scenario,
  path: KeyPath,
  { booted, replaying }: { booted: boolean; replaying: boolean },
): Problem[] {
  const problems: Problem[] = [];
  if (kind === 'boot' && booted) problems.push({ path, expected: 'one boot', found: 'a second' });
  if (kind !== 'boot' && !booted)
    problems.push({ path, expected: 'boot as the first step', found: kind });
  if (kind === 'workload' && !recording) {
    const expected = 'a key "recording" of the scenario to replay';
    problems.push({ path, expected, found: 'none' });
  }
  if (kind === 'waitUntilMigrateAt' && !replaying) {
    const expected = 'workload: recording before waiting for its migrate_at';
    problems.push({ path, expected, found: 'none' });
  }
  return problems;
}

function ofBalloon(step: Step, scenario: Scenario, path: KeyPath): Problem[] {
  if (step.kind !== 'inflate' && step.kind !== 'deflate') return [];
  const smallest = Math.min(...machinesOf(scenario).map(({ memoryBytes }) => memoryBytes));
  if (step.sizeBytes <= smallest) return [];
  const expected = `at most the machine's ${formatBytes(smallest)}`;
  return [{ path: [...path, step.kind], expected }];
}

/** Every machine must have the vCPU that a step names. */
function ofVcpu(
  step: Step,
  file: StepFile | undefined,
  scenario: Scenario,
  path: KeyPath,
): Problem[] {
  const cpu = file?.compact?.cpu;
  const fewest = Math.min(...machinesOf(scenario).map(({ vcpus }) => vcpus));
  if (step.kind !== 'console' || cpu === undefined || cpu < fewest) return [];
  const expected = `a vCPU of the machine, below ${fewest}`;
  return [{ path: [...path, step.step, 'cpu'], expected }];
}

function machinesOf(scenario: Scenario): readonly Scenario[] {
  return scenario.variants.length === 0 ? [scenario] : scenario.variants;
}

/** `for` and `to` name what the scenario has. */
function ofNames(step: Step, { variants }: Scenario, path: KeyPath): Problem[] {
  if (step.kind !== 'expect' && step.kind !== 'compare') return [];
  const names = variants.map(({ variant }) => variant ?? '');
  const problems: Problem[] = [];
  const runs = names.flatMap((name) => STRATEGIES.map((strategy) => `${name} ${strategy}`));
  const known = [...STRATEGIES, ...names, ...runs];
  for (const [index, name] of (step.for ?? []).entries()) {
    if (known.includes(name)) continue;
    problems.push({
      path: [...path, step.kind, 'for', index],
      expected: `one of ${[...STRATEGIES, ...names].join(', ')}, or a variant and a strategy`,
    });
  }
  if (step.kind === 'compare' && !names.includes(step.to)) {
    const expected =
      names.length === 0 ? 'a scenario with variants' : `a variant: ${names.join(', ')}`;
    problems.push({ path: [...path, 'compare', 'to'], expected });
  }
  return problems;
}

import { describe, expect, test } from 'vitest';
import { loadScenario, parseOverride, parseScenario } from '../../../../lab/scenario/load.ts';
import { STEP_NAMES } from '../../../../lab/scenario/schema.ts';
import { DEFAULT_COSTS } from '../../../../shared/index.ts';

const STEPS = STEP_NAMES.join(', ');
const base = ['machine: { memory: 64MiB }', 'steps:', '  - boot'];

function withLines(...lines: string[]): string {
  return [...base, ...lines, ''].join('\n');
}

/** Every case: what stands in line 4, and the one line that it must give. */
const refused: [title: string, line: string, message: string][] = [
  [
    'an unknown step',
    '  - reboot: 1',
    `x.yaml:4: steps[1].reboot: expected one of ${STEPS}, found unknown key "reboot"`,
  ],
  [
    'a misspelt key',
    '  - expect: { lost_page: 0 }',
    'x.yaml:4: steps[1].expect.lost_page: expected a figure of docs/result-format.md, found unknown key "lost_page"',
  ],
  [
    'a size without unit',
    '  - inflate: 4096',
    'x.yaml:4: steps[1].inflate: expected a size such as 4KiB, 512MiB or 1GiB, found 4096',
  ],
  [
    'a decimal unit',
    '  - inflate: 4MB',
    'x.yaml:4: steps[1].inflate: expected a size such as 4KiB, 512MiB or 1GiB, found "4MB"',
  ],
  [
    'an empty balloon step',
    '  - inflate: 0MiB',
    'x.yaml:4: steps[1].inflate: expected a size above 0, found "0MiB"',
  ],
  [
    'a negative size',
    '  - inflate: -4MiB',
    'x.yaml:4: steps[1].inflate: expected a size above 0, found "-4MiB"',
  ],
  [
    'half a page',
    '  - deflate: 6KiB',
    'x.yaml:4: steps[1].deflate: expected a whole number of pages of 4KiB, found "6KiB"',
  ],
  [
    'more than the largest machine',
    '  - inflate: 2TiB',
    'x.yaml:4: steps[1].inflate: expected a size of at most 1TiB, found "2TiB"',
  ],
  [
    'a balloon larger than RAM',
    '  - inflate: 65MiB',
    'x.yaml:4: steps[1].inflate: expected at most the machine\'s 64MiB, found "65MiB"',
  ],
  [
    'a duration without unit',
    '  - wait: 2',
    'x.yaml:4: steps[1].wait: expected a duration such as 500us, 10ms or 2s, or { until } with migrate_at, migration, switchover, balloon or a pass such as "pass 3", found 2',
  ],
  [
    'a program without its rate',
    '  - start: { name: x, churn: { keep: 1MiB, chunk: 64KiB } }',
    'x.yaml:4: steps[1].start.churn.rate: expected a rate such as 50MiB/s, or 0, found nothing',
  ],
  [
    'an unknown event to wait for',
    '  - wait: { until: noon }',
    'x.yaml:4: steps[1].wait: expected a duration such as 500us, 10ms or 2s, or { until } with migrate_at, migration, switchover, balloon or a pass such as "pass 3", found {"until":"noon"}',
  ],
  [
    'a downtime of nothing',
    '  - migrate: { downtime_limit: 0ms }',
    'x.yaml:4: steps[1].migrate.downtime_limit: expected a duration above 0, found "0ms"',
  ],
  [
    'a rate that is a size',
    '  - migrate: { bandwidth: 200MiB }',
    'x.yaml:4: steps[1].migrate.bandwidth: expected a rate such as 200MiB/s, found "200MiB"',
  ],
  [
    'an unknown way to clear the log',
    '  - migrate: { dirty_log: never }',
    'x.yaml:4: steps[1].migrate.dirty_log: expected one of tcg, kvm-bitmap, kvm-get-and-clear, kvm-ring, found "never"',
  ],
  [
    'a replay without recording',
    '  - workload: recording',
    'x.yaml:4: steps[1]: expected a key "recording" of the scenario to replay, found none',
  ],
  [
    'migrate_at without replay',
    '  - wait: { until: migrate_at }',
    'x.yaml:4: steps[1]: expected workload: recording before waiting for its migrate_at, found none',
  ],
  ['a second boot', '  - boot', 'x.yaml:4: steps[1]: expected one boot, found a second'],
  [
    'two steps in one',
    '  - { inflate: 4KiB, deflate: 4KiB }',
    `x.yaml:4: steps[1]: expected one step: ${STEPS}, found {"inflate":"4KiB","deflate":"4KiB"}`,
  ],
  [
    'a bound without number',
    '  - expect: { recall: high }',
    'x.yaml:4: steps[1].expect.recall: expected a number, or at_least, at_most or within with a number, found "high"',
  ],
  [
    'an unknown device',
    'device: firecraker',
    'x.yaml:4: device: expected one of ballast, qemu-7.2, firecracker-1.16, cloud-hypervisor, crosvm, v86, or a map of keys, found "firecraker"',
  ],
  [
    'an unknown profile',
    'device: { profile: qemu }',
    'x.yaml:4: device.profile: expected one of ballast, qemu-7.2, firecracker-1.16, cloud-hypervisor, crosvm, v86, found "qemu"',
  ],
  [
    'an unknown feature of the device',
    'device: { stats: true }',
    'x.yaml:4: device.stats: expected one of profile, free_page_hint, must_tell_host, deflate_on_oom, hint_wait_on_ack, stats_vq, page_poison, page_reporting, indirect_desc, event_idx, ring_packed, in_order, ring_reset, suspend, discard_hints, inhibit_discards, queue_sizes, last_cmd_id, stats_interval, queue_numbering, quirks, found unknown key "stats"',
  ],
  [
    'an unknown strategy',
    'strategies: [none, magic]',
    'x.yaml:4: strategies[1]: expected one of none, iterate, alloc, alloc-ack, oracle, found "magic"',
  ],
  [
    'a text for a truth value',
    'mm: { init_on_alloc: "maybe" }',
    'x.yaml:4: mm.init_on_alloc: expected true or false, found "maybe"',
  ],
  ['a fraction of a seed', 'seed: 1.5', 'x.yaml:4: seed: expected a whole number, found 1.5'],
  ['a negative seed', 'seed: -1', 'x.yaml:4: seed: expected at least 0, found -1'],
  [
    'an unknown cost',
    'costs: { teaNs: 1 }',
    `x.yaml:4: costs.teaNs: expected one of ${Object.keys(DEFAULT_COSTS).join(', ')}, found unknown key "teaNs"`,
  ],
  [
    'a cost of more than 10 s',
    'costs: { allocNs: 10000000001 }',
    'x.yaml:4: costs.allocNs: expected at most 10000000000, found 10000000001',
  ],
  [
    'a budget of nothing',
    'iterate: { budget: 0 }',
    'x.yaml:4: iterate.budget: expected at least 1, found 0',
  ],
  [
    'a counter that /proc/vmstat does not have',
    '  - expect: { pgalloc_dma64: 0 }',
    'x.yaml:4: steps[1].expect.pgalloc_dma64: expected a figure of docs/result-format.md, found unknown key "pgalloc_dma64"',
  ],
  [
    'a process without memory',
    '  - process: { name: vm }',
    'x.yaml:4: steps[1].process: expected either anonymous or shmem beside the name, found {"name":"vm"}',
  ],
  [
    'a key of another step',
    '  - slab: { name: s, size: 4MiB, shmem: 4MiB }',
    'x.yaml:4: steps[1].slab.shmem: expected one of name, size, order, found unknown key "shmem"',
  ],
  [
    'a name that is more than a word',
    '  - exit: "vm size=1"',
    'x.yaml:4: steps[1].exit: expected a name of at most 32 letters, digits, "_", "." or "-", found "vm size=1"',
  ],
  [
    'a direct compaction for nothing',
    '  - compact: { how: direct }',
    'x.yaml:4: steps[1].compact: expected an order with how: direct or kcompactd, and none with manual, found {"how":"direct"}',
  ],
  [
    'a vCPU that there is not',
    '  - compact: { cpu: 1 }',
    'x.yaml:4: steps[1].compact.cpu: expected a vCPU of the machine, below 1, found 1',
  ],
  [
    'a pin by nobody',
    '  - pin: { process: vm, size: 4MiB, by: magic }',
    'x.yaml:4: steps[1].pin.by: expected one of vfio, longterm, short, found "magic"',
  ],
  [
    'a comparison with no variant',
    '  - compare: { to: list, pgfree: { factor_at_most: 1 } }',
    'x.yaml:4: steps[1].compare.to: expected a scenario with variants, found "list"',
  ],
  [
    'an expectation of nobody',
    '  - expect: { for: [nobody], pgfree: 1 }',
    'x.yaml:4: steps[1].expect.for[0]: expected one of none, iterate, alloc, alloc-ack, oracle, or a variant and a strategy, found "nobody"',
  ],
  [
    'a variant with the name of a strategy',
    'variants: [{ name: alloc }]',
    'x.yaml:4: variants[0].name: expected a name that no strategy has, found "alloc"',
  ],
  [
    'two variants of one name',
    'variants: [{ name: a }, { name: a }]',
    'x.yaml:4: variants[1].name: expected a name of its own, found "a"',
  ],
  [
    'a key that was replaced',
    'migration: { clear_log: lazy }',
    'x.yaml:4: migration.clear_log: expected dirty_log in its place (at-sync: tcg; lazy: kvm-bitmap; lazy-at-start: kvm-bitmap with hint_remedy: clear-at-id), found unknown key "clear_log"',
  ],
  [
    'a variant with steps',
    'variants: [{ name: a, steps: [boot] }]',
    'x.yaml:4: variants[0].steps: expected one of name, hypervisor, machine, mm, iterate, migration, device, driver, costs, found unknown key "steps"',
  ],
  [
    'a movable zone of all memory',
    'mm: { movable_zone: 64MiB }',
    'x.yaml:4: mm.movable_zone: expected less than the machine\'s 64MiB, found "64MiB"',
  ],
  [
    'a check of pins that there is not',
    'mm: { pin_check: sometimes }',
    'x.yaml:4: mm.pin_check: expected one of anonymous, extra_refs, maybe_dma_pinned, found "sometimes"',
  ],
  [
    'a missing recording',
    'recording: no-such-guest',
    'x.yaml:4: recording: expected a recording: a .ballast file, a folder, or a name in scenarios/recordings/, found "no-such-guest"',
  ],
];

describe('a scenario', () => {
  test.each(refused)('refuses %s with its line', async (_title, line, message) => {
    await expect(parseScenario('x.yaml', withLines(line))).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message,
    });
  });

  test('reports several problems, one line each, in the order of the file', async () => {
    const text = ['seed: x', 'machine: { memory: 1GB }', 'colour: red'].join('\n');
    const failure = await parseScenario('x.yaml', text).catch((error: Error) => error.message);
    expect(
      String(failure)
        .split('\n')
        .map((line) => line.split(':').slice(0, 3).join(':')),
    ).toEqual(['x.yaml:1: seed', 'x.yaml:2: machine.memory', 'x.yaml:3: colour']);
  });

  test.each([
    ['an indentation error', 'steps:\n  - boot\n - migrate\n', 'x.yaml:3: expected YAML'],
    ['a key given twice', 'seed: 1\nseed: 2\n', 'x.yaml:2: expected YAML'],
    ['a list', '- boot\n', 'x.yaml:1: expected a map of keys'],
    ['an alias without anchor', 'seed: *one\n', 'x.yaml:1: expected YAML'],
  ])('refuses %s with its line', async (_title, text, start) => {
    const failure = await parseScenario('x.yaml', text).catch((error: Error) => error.message);
    expect(failure).toMatch(new RegExp(`^${start.replace(/[.*]/g, '\\$&')}[^\\n]*$`));
  });

  test('fills in what is left out', async () => {
    const scenario = await parseScenario('dir/tiny.yaml', 'steps: [boot, migrate]\n');
    expect(scenario).toMatchObject({
      name: 'tiny',
      seed: 1,
      memoryBytes: 256 * 2 ** 20,
      vcpus: 1,
      strategies: ['none'],
      mm: { initOnAlloc: true, initOnFree: false, pagePoison: false },
      iterate: { budgetNodes: 1000, minOrder: 0 },
      steps: [
        { kind: 'boot' },
        { kind: 'migrate', params: { downtimeLimitMs: 300, bandwidthBytesPerS: 200 * 2 ** 20 } },
      ],
    });
  });

  test('says what the device offers and does', async () => {
    const text = withLines('device: { hint_wait_on_ack: false, discard_hints: true }');
    const given = await parseScenario('x.yaml', text);
    expect(given.device).toEqual({ hintWaitOnAck: false, discardHints: true });
    const left = await parseScenario('x.yaml', withLines());
    expect(left.device).toEqual({});
  });

  test('takes the name of a profile, and what is different from it', async () => {
    const named = await parseScenario('x.yaml', withLines('device: firecracker-1.16'));
    expect(named.device).toEqual({ profile: 'firecracker-1.16' });
    const changed = await parseScenario(
      'x.yaml',
      withLines(
        'device:',
        '  profile: v86',
        '  page_reporting: true',
        '  queue_numbering: dense-by-offered',
        '  quirks: { done-at-guest-stop: false }',
        'variants: [{ name: one }, { name: two, device: crosvm }]',
      ),
    );
    const changes = {
      pageReporting: true,
      numbering: 'dense-by-offered',
      quirks: { 'done-at-guest-stop': false },
    };
    expect(changed.variants.map(({ device }) => device)).toEqual([
      { profile: 'v86', ...changes },
      { profile: 'crosvm', ...changes },
    ]);
  });

  test.each([
    ['hypervisor: qemu-10-tcg', 'tcg', 'none', 18],
    ['hypervisor: qemu-10-kvm', 'kvm-bitmap', 'none', 18],
    [
      'hypervisor: qemu-7.2-kvm\nmigration: { hint_remedy: clear-at-id, clear_bitmap_shift: 6 }',
      'kvm-bitmap',
      'clear-at-id',
      6,
    ],
    ['migration: { dirty_log: kvm-ring }', 'kvm-ring', 'none', 18],
  ] as const)('has the dirty log of %s', async (lines, dirtyLog, hintRemedy, clearBitmapShift) => {
    const { migration } = await parseScenario('x.yaml', withLines(lines));
    expect(migration).toMatchObject({ dirtyLog, hintRemedy, clearBitmapShift });
  });

  test('takes a cost of 10 s', async () => {
    const scenario = await parseScenario('x.yaml', withLines('costs: { allocNs: 10000000000 }'));
    expect(scenario.costs.allocNs).toBe(10 * 1e9);
  });

  test('gives a migrate step its own limits', async () => {
    const text =
      'migration: { downtime_limit: 50ms }\nsteps: [boot, migrate: { bandwidth: 1GiB/s }]\n';
    const scenario = await parseScenario('x.yaml', text);
    expect(scenario.steps[1]).toMatchObject({
      params: { downtimeLimitMs: 50, bandwidthBytesPerS: 2 ** 30 },
    });
  });
});

describe('a step of memory', () => {
  test.each([
    ['process: { name: vm, shmem: 1MiB }', 'process name=vm shmem=256'],
    ['exit: vm', 'exit name=vm'],
    ['compact', 'compact how=manual times=1'],
    ['compact: { how: direct, order: 9, times: 3 }', 'compact how=direct order=9 times=3'],
    ['pin: { process: vm, size: 8KiB, by: vfio }', 'pin process=vm size=2 by=vfio'],
    ['allocate: { order: 9, count: 4 }', 'allocate order=9 count=4'],
    ['free_allocated', 'free_allocated'],
    ['contig: { start: 16MiB, size: 4MiB }', 'contig start=4096 size=1024'],
  ])('%s is a line of the console', async (step, line) => {
    const { steps } = await parseScenario('x.yaml', withLines(`  - ${step}`));
    const name = line.split(' ')[0];
    expect(steps[1]).toEqual({ kind: 'console', step: name, line, where: 'x.yaml:4' });
  });
});

describe('variants', () => {
  const text = withLines(
    'mm: { pin_check: extra_refs, init_on_alloc: false }',
    'variants:',
    '  - { name: as-is }',
    '  - { name: pfn, mm: { movable_generation: pfn }, machine: { vcpus: 2 } }',
  );

  test('override single keys and inherit the others', async () => {
    const { variant, variants } = await parseScenario('x.yaml', text);
    expect(variant).toBeNull();
    expect(variants.map((one) => [one.variant, one.vcpus, one.memoryBytes / 2 ** 20])).toEqual([
      ['as-is', 1, 64],
      ['pfn', 2, 64],
    ]);
    expect(variants.map(({ kernel }) => [kernel.movableGeneration, kernel.pinCheck])).toEqual([
      ['list', 'extra_refs'],
      ['pfn', 'extra_refs'],
    ]);
    expect(variants.map(({ mm }) => mm.initOnAlloc)).toEqual([false, false]);
  });

  test('are refused with their own line when they contradict the steps', async () => {
    const small = withLines(
      '  - inflate: 32MiB',
      'variants:',
      '  - name: small',
      '    machine: { memory: 16MiB }',
    );
    await expect(parseScenario('x.yaml', small)).rejects.toMatchObject({
      message: 'x.yaml:4: steps[1].inflate: expected at most the machine\'s 16MiB, found "32MiB"',
    });
    const zone = withLines('variants:', '  - name: a', '    mm: { movable_zone: 1GiB }');
    await expect(parseScenario('x.yaml', zone)).rejects.toMatchObject({
      message:
        'x.yaml:6: variants[0].mm.movable_zone: expected less than the machine\'s 64MiB, found "1GiB"',
    });
  });
});

test.each([
  ['a recording that is migrated', 'recording: idle-1g', 5],
  ['a recording that is not', 'recording: idle-1g\nsteps: [boot]', 1],
  ['no recording', 'steps: [boot, migrate]', 1],
])('%s runs under as many strategies as make sense', async (_what, text, count) => {
  expect((await parseScenario('x.yaml', text)).strategies.length).toBe(count);
});

describe('--set', () => {
  test('overrides a key, also one that the file does not have', async () => {
    const overrides = ['machine.memory=128MiB', 'mm.init_on_alloc=false', 'costs.allocNs=7'].map(
      parseOverride,
    );
    const scenario = await parseScenario('x.yaml', withLines(), { overrides });
    expect(scenario.memoryBytes).toBe(128 * 2 ** 20);
    expect(scenario.mm.initOnAlloc).toBe(false);
    expect(scenario.costs.allocNs).toBe(7);
  });

  test('is named when its value is refused', async () => {
    const overrides = [parseOverride('mm.init_on_alloc=7')];
    const message = '--set mm.init_on_alloc=7: mm.init_on_alloc: expected true or false, found 7';
    await expect(parseScenario('x.yaml', withLines(), { overrides })).rejects.toMatchObject({
      message,
    });
  });

  test.each(['', 'seed', '=1', 'mm.=1', 'seed=[', '__proto__.x=1'])('refuses %j', async (text) => {
    const attempt = async () =>
      parseScenario('x.yaml', withLines(), { overrides: [parseOverride(text)] });
    await expect(attempt()).rejects.toMatchObject({ code: 'BAD_INPUT' });
    expect({}).not.toHaveProperty('x');
  });
});

test('policies of convergence are variants', async () => {
  const { variants } = await loadScenario('idle-1g', { policies: ['default', 'auto-converge'] });
  expect(variants.map(({ variant, migration }) => [variant, migration.policy])).toEqual([
    ['default', 'default'],
    ['auto-converge', 'auto-converge'],
  ]);
});

import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { PLANT_HOMES } from '../../../../lab/explore/homes.ts';
import { loadExploration, parseExploration } from '../../../../lab/explore/load.ts';
import { BallastError, PLANT_NAMES } from '../../../../shared/index.ts';

const folder = fileURLToPath(new URL('../../../../scenarios/explore/', import.meta.url));

describe('a scenario of the explorer', () => {
  test('is completed from its defaults', () => {
    const scenario = parseExploration('small.yaml', 'threads: [inflate, migrate]');
    expect(scenario).toMatchObject({
      name: 'small',
      seed: 1,
      machine: { frames: 1024, managed: 160, vcpus: 2 },
      generation: 'list',
      strategy: 'none',
      threads: [
        { kind: 'inflate', pages: 4, times: 1 },
        { kind: 'migrate', dirtyLog: 'tcg', hintRemedy: 'none' },
      ],
      faults: { delayedAcks: 0, allocFailures: 0, lateDevice: 0 },
    });
  });

  test('hinting is the driver’s strategy, and a thread only if the host asks for rounds', () => {
    const hint = (rounds: number) =>
      parseExploration(
        'x.yaml',
        `threads: [{hint: {strategy: iterate, budget: 3, rounds: ${rounds}}}, inflate]`,
      );
    expect(hint(0)).toMatchObject({ strategy: 'iterate', iterate: { budgetNodes: 3 } });
    expect(hint(0).threads.map(({ kind }) => kind)).toEqual(['inflate']);
    expect(hint(2).threads.map(({ kind }) => kind)).toEqual(['hint', 'inflate']);
  });

  test.each([
    [
      'threads:\n  - inflat: {}\n',
      'x.yaml:2: threads[0].inflat: expected one of inflate, deflate,',
    ],
    [
      'threads:\n  - inflate: {pages: 0}\n',
      'x.yaml:2: threads[0].inflate.pages: expected at least 1',
    ],
    [
      'generation: new\nthreads: [inflate]\n',
      'x.yaml:1: generation: expected one of list, pfn, found "new"',
    ],
    [
      'threads: [inflate]\nplants: late-hint-accepted\n',
      'x.yaml:2: plants: expected one of name, description,',
    ],
    [
      'threads:\n  - migrate\n  - migrate\n',
      'x.yaml:3: threads[1]: expected one migrate, found a second',
    ],
    [
      'threads:\n  - compact: {cpu: 2}\n',
      'x.yaml:2: threads[0].compact.cpu: expected a vCPU below 2, found 2',
    ],
    [
      'machine: {managed: 600}\nthreads: [inflate]\n',
      'x.yaml:1: machine.managed: expected at most 512, half of the frames, or all 1024, found 600',
    ],
    [
      'threads:\n  - hint: {strategy: alloc}\n',
      'x.yaml:1: machine.frames: expected at least 2048: alloc takes blocks of 4 MiB, found nothing',
    ],
    [
      'device: {discard_hints: true}\nthreads: [inflate]\n',
      'x.yaml:1: device.discard_hints: expected a thread "hint" whose hints are discarded, found none',
    ],
    [
      'threads:\n  - hint: {strategy: iterate, rounds: 1}\n  - migrate\n',
      'x.yaml:2: threads[0].hint.rounds: expected no rounds beside a migration',
    ],
  ])('is refused with its line: %j', (text, message) => {
    expect(() => parseExploration('x.yaml', text)).toThrow(BallastError);
    expect(() => parseExploration('x.yaml', text)).toThrow(message);
  });

  test('that is not there is named', async () => {
    await expect(loadExploration('no-such')).rejects.toThrow('no-such: expected a scenario of the');
  });
});

test.each(PLANT_NAMES)('%s has a scenario that there is', (plant) => {
  expect(existsSync(`${folder}${PLANT_HOMES[plant]}.yaml`)).toBe(true);
});

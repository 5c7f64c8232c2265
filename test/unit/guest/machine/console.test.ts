/** What is typed on the guest's console: which threads run, when they are over, what is printed. */
import { describe, expect, test } from 'vitest';
import { CommandLine } from '../../../../guest/machine/command-line.ts';
import { type CommandTable, Console } from '../../../../guest/machine/console.ts';
import { Scheduler } from '../../../../guest/sched/scheduler.ts';
import { BallastError } from '../../../../shared/index.ts';

const commands: CommandTable = {
  *sleep(args) {
    yield { kind: 'sleep', ns: args.number('ns') };
    return null;
  },
  *fail(args) {
    yield { kind: 'sleep', ns: 1 };
    return `failed as ${args.text('who', 'asked')}`;
  },
  *crash() {
    yield { kind: 'sleep', ns: 1 };
    throw new RangeError('a bug');
  },
};

function machine() {
  const scheduler = new Scheduler(2);
  const lines: string[] = [];
  const kernel = {
    get now() {
      return scheduler.now;
    },
    log: { add: (_at: number, event: string) => void lines.push(event) },
    spawn: (_name: string, body: Parameters<Scheduler['spawn']>[0], cpu = 0) =>
      scheduler.spawn(body, cpu),
  };
  return { scheduler, lines, console: new Console(kernel, 2, commands) };
}

describe('a line', () => {
  test('is pending until its thread is over', () => {
    const { scheduler, console } = machine();
    console.enter('sleep ns=100');
    console.enter('sleep ns=200 cpu=1');
    const pendingAt = (ns: number) => {
      scheduler.run(ns, 0);
      return console.counters.console_pending;
    };
    expect([0, 99, 100, 199, 200].map(pendingAt)).toEqual([2, 2, 1, 1, 0]);
    expect(console.read()).toEqual([]);
    expect(console.counters).toEqual({ console_pending: 0, console_done: 2, console_failed: 0 });
  });

  test.each([
    ['fail', 'failed as asked'],
    ['fail who=told', 'failed as told'],
    ['sleep', 'expected ns=NUMBER, found nothing'],
    ['sleep ns=-1', 'expected ns=NUMBER, found ns=-1'],
    ['sleep ns=1e9', 'expected ns=NUMBER, found ns=1e9'],
    ['sleep ns=1 cpu=2', 'expected a vCPU below 2, found 2'],
    ['sleep ns=1 cpu=x', 'expected a vCPU below 2, found NaN'],
    ['reboot now', 'reboot: no such command'],
    ['toString', 'toString: no such command'],
    ['', ': no such command'],
  ])('%j that fails prints why, once', (line, reason) => {
    const { scheduler, console } = machine();
    console.enter(line);
    scheduler.run(10, 0);
    expect(console.read()).toEqual([reason]);
    expect(console.read()).toEqual([]);
    expect(console.counters).toEqual({ console_pending: 0, console_done: 0, console_failed: 1 });
  });

  test('is in the event log with its end', () => {
    const { scheduler, console, lines } = machine();
    console.enter('sleep ns=1');
    console.enter('reboot');
    scheduler.run(10, 0);
    expect(lines).toEqual(['console', 'console_unknown', 'console_end']);
  });

  test('hides no bug of ours', () => {
    const { scheduler, console } = machine();
    console.enter('crash');
    expect(() => scheduler.run(10, 0)).toThrow(RangeError);
  });

  test('leaves no more output than a message holds', () => {
    const { console } = machine();
    for (let i = 0; i < 300; i++) console.enter('reboot');
    expect(console.read()).toHaveLength(256);
  });
});

test('so many lines are at work at one time and no more', () => {
  const { scheduler, console } = machine();
  for (let i = 0; i < 257; i++) console.enter('sleep ns=5');
  expect(console.counters.console_pending).toBe(256);
  scheduler.run(10, 0);
  expect(console.read()).toEqual(['256 lines are at work already']);
});

describe('words', () => {
  const args = new CommandLine(
    ' pin  process=vm size=1024 by=vfio write=true odd huge=99999999999 order=11 empty=0',
  );

  test('are found by their keys', () => {
    expect([args.name, args.text('process'), args.number('size')]).toEqual(['pin', 'vm', 1024]);
    expect([args.flag('write'), args.flag('read'), args.has('size')]).toEqual([true, false, true]);
    expect([args.number('other', 9), args.text('name', 'none'), args.cpu]).toEqual([9, 'none', 0]);
    expect(args.oneOf('by', ['short', 'vfio'])).toBe('vfio');
  });

  test.each([
    ['a text', () => args.text('name'), 'expected name=…, found nothing'],
    ['a number', () => args.number('by'), 'expected by=NUMBER, found by=vfio'],
    [
      'a number beyond every machine',
      () => args.number('huge'),
      'expected huge=NUMBER of at most 1048576, found huge=99999999999',
    ],
    ['an order', () => args.order(), 'expected order=NUMBER of at most 10, found order=11'],
    ['a size', () => args.pages('empty'), 'expected empty=NUMBER of at least 1, found empty=0'],
    ['a choice', () => args.oneOf('by', ['a', 'b']), 'expected by=a|b, found by=vfio'],
  ])('%s that is missing or wrong is asked for', (_what, read, message) => {
    expect(read).toThrow(new BallastError('BAD_INPUT', message));
  });
});

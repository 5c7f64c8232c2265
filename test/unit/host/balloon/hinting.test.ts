import { describe, expect, test } from 'vitest';
import {
  FREE_PAGE_HINT_CMD_ID_MIN,
  type HintingOptions,
  HintStateMachine,
  HintStatus,
} from '../../../../host/balloon/hinting.ts';
import { newBalloonMetrics } from '../../../../host/balloon/metrics.ts';
import { HintCommand } from '../../../../protocol/index.ts';

const { STOP, REQUESTED, START, DONE } = HintStatus;
const OPTIONS: HintingOptions = {
  acceptLateHints: false,
  hintIds: 'qemu',
  quirks: new Set(['start-reads-as-stop']),
};

function make(options: Partial<HintingOptions> = {}) {
  const metrics = newBalloonMetrics();
  const hints: number[][] = [];
  const machine = new HintStateMachine(
    { ...OPTIONS, ...options },
    metrics,
    (first, count, origin) => {
      hints.push([first, count, origin.cmdId, origin.queuedAtNs]);
    },
  );
  return { machine, metrics, hints };
}

/** Brings a fresh machine into a state. */
function enter(machine: HintStateMachine, status: HintStatus): void {
  if (status === STOP) return;
  machine.start();
  if (status === START) machine.command(machine.cmdId);
  if (status === DONE) machine.done();
}

describe('every event in every state', () => {
  type Event = 'start' | 'stop' | 'done' | 'current id' | 'old id' | 'STOP id' | 'reset';
  const act: Record<Event, (machine: HintStateMachine) => void> = {
    start: (machine) => machine.start(),
    stop: (machine) => void machine.stop(),
    done: (machine) => void machine.done(),
    'current id': (machine) => machine.command(machine.cmdId),
    'old id': (machine) => machine.command(machine.cmdId - 1),
    'STOP id': (machine) => machine.command(HintCommand.STOP),
    reset: (machine) => machine.reset(),
  };
  const table: [
    Event,
    [stop: HintStatus, requested: HintStatus, start: HintStatus, done: HintStatus],
  ][] = [
    ['start', [REQUESTED, REQUESTED, REQUESTED, REQUESTED]],
    ['stop', [STOP, STOP, STOP, STOP]],
    ['done', [DONE, DONE, DONE, DONE]],
    ['current id', [STOP, START, STOP, DONE]],
    ['old id', [STOP, REQUESTED, STOP, DONE]],
    ['STOP id', [STOP, REQUESTED, STOP, DONE]],
    ['reset', [STOP, STOP, STOP, STOP]],
  ];
  const cases = table.flatMap(([event, to]) =>
    [STOP, REQUESTED, START, DONE].map((from, i) => ({ event, from, to: to[i]! })),
  );

  test.each(cases)('$event in $from goes to $to', ({ event, from, to }) => {
    const { machine } = make();
    enter(machine, from);
    expect(machine.status).toBe(from);
    act[event](machine);
    expect(machine.status).toBe(to);
  });

  test.each([
    { status: STOP, accepted: false },
    { status: REQUESTED, accepted: false },
    { status: START, accepted: true },
    { status: DONE, accepted: false },
  ])('a block in $status is accepted: $accepted', ({ status, accepted }) => {
    const { machine, metrics, hints } = make();
    enter(machine, status);
    machine.beginChain(5);
    machine.hint(1, 2);
    expect(hints).toEqual(accepted ? [[1, 2, machine.cmdId, 5]] : []);
    expect(metrics.hints_late).toBe(accepted ? 0 : 1);
    expect(metrics.hint_pages_late).toBe(accepted ? 0 : 2);
    expect(machine.status).toBe(status);
  });

  test('stop and done notify only on a change', () => {
    const { machine } = make();
    expect(machine.stop()).toBe(false);
    expect(machine.done()).toBe(true);
    expect(machine.done()).toBe(false);
    expect(machine.stop()).toBe(true);
  });
});

describe('command ids', () => {
  // spec: 5.5.6.5.2-device-2
  test('the first is 0x80000001 and each round has a new one', () => {
    const { machine } = make();
    machine.start();
    expect(machine.cmdId).toBe(0x8000_0001);
    machine.stop();
    machine.start();
    expect(machine.cmdId).toBe(0x8000_0002);
  });

  test('2^32−1 is followed by the minimum', () => {
    const { machine } = make({ lastCmdId: 0xffff_fffe });
    machine.start();
    expect(machine.cmdId).toBe(0xffff_ffff);
    machine.start();
    expect(machine.cmdId).toBe(FREE_PAGE_HINT_CMD_ID_MIN);
  });

  // spec: 5.5.6.5.2-device-2
  test('survive a reset, so no id is published twice', () => {
    const { machine } = make();
    machine.start();
    machine.reset();
    machine.start();
    expect(machine.cmdId).toBe(0x8000_0002);
  });

  test.each([
    { status: STOP, stop: HintCommand.STOP, id: HintCommand.STOP },
    { status: DONE, stop: HintCommand.DONE, id: HintCommand.DONE },
    { status: REQUESTED, stop: 0x8000_0001, id: 0x8000_0001 },
    { status: START, stop: HintCommand.STOP, id: 0x8000_0001 },
  ])('reads in $status', ({ status, stop, id }) => {
    for (const [quirks, expected] of [
      [['start-reads-as-stop'], stop],
      [[], id],
    ] as const) {
      const { machine } = make({ quirks: new Set(quirks) });
      enter(machine, status);
      expect(machine.configValue).toBe(expected);
    }
  });
});

describe('stale and foreign', () => {
  // spec: 5.5.6.5.2-device-3
  test('blocks under an old id are late, also in the next round', () => {
    const { machine, metrics, hints } = make();
    machine.start();
    const old = machine.cmdId;
    machine.stop();
    machine.start();
    machine.command(old);
    machine.hint(0, 1);
    expect(hints).toEqual([]);
    expect(metrics).toMatchObject({ hints_late: 1, hint_stale_ids: 1 });
  });

  test('the plant accepts late hints under the id of the driver, and still counts them', () => {
    const { machine, metrics, hints } = make({ acceptLateHints: true });
    machine.start();
    const old = machine.cmdId;
    machine.command(old);
    machine.stop();
    machine.beginChain(1);
    machine.hint(0, 1);
    expect(hints).toEqual([[0, 1, old, 1]]);
    expect(metrics.hints_late).toBe(1);
  });
});

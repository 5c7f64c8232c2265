import { expect, test } from 'vitest';
import { QueueActor, ThreadActor } from '../../../explorer/actor.ts';
import { RunToBlock } from '../../../explorer/policy.ts';
import { ExplorerScheduler } from '../../../explorer/scheduler.ts';
import { Violation } from '../../../explorer/violation.ts';
import { type Kthread, preempt, WaitQueue } from '../../../guest/sched/kthread.ts';
import { Mutex } from '../../../guest/sched/locks.ts';
import { assert } from '../../../shared/index.ts';

const POINT = preempt('point');

function foreground(scheduler: ExplorerScheduler, name: string, thread: Kthread): ThreadActor {
  const clock = (): number => scheduler.now;
  return scheduler.addForeground(new ThreadActor(name, thread, scheduler.onAccess, clock));
}

function run(scheduler: ExplorerScheduler, stepsMax = 100): boolean {
  return scheduler.run(
    new RunToBlock(),
    () => scheduler.allFinished,
    stepsMax,
    () => {},
  );
}

test('time follows the order: a sleeper that is chosen has slept', () => {
  const scheduler = new ExplorerScheduler();
  const seen: number[] = [];
  foreground(
    scheduler,
    'sleeper',
    (function* (): Kthread {
      yield { kind: 'sleep', ns: 500 };
      seen.push(scheduler.now);
      yield { kind: 'cpu', ns: 20 };
      seen.push(scheduler.now);
    })(),
  );
  expect(run(scheduler)).toBe(true);
  expect(seen).toEqual([500, 520]);
});

test('two threads that wait for each other’s locks are stuck, and it is told for what', () => {
  const scheduler = new ExplorerScheduler();
  const locks = [new Mutex('lock A'), new Mutex('lock B')] as const;
  const both = function* (first: Mutex, second: Mutex): Kthread {
    yield* first.lock();
    yield { kind: 'sleep', ns: 1 };
    yield* second.lock();
    second.unlock();
    first.unlock();
  };
  foreground(scheduler, 'one', both(locks[0], locks[1]));
  foreground(scheduler, 'other', both(locks[1], locks[0]));
  expect(run(scheduler)).toBe(false);
  expect(scheduler.stepCount).toBeLessThan(100);
  expect(scheduler.describeWaiters()).toBe('one: waits (lock B); other: waits (lock A)');
});

test('a loop without end stops at the limit', () => {
  const scheduler = new ExplorerScheduler();
  foreground(
    scheduler,
    'loop',
    (function* (): Kthread {
      for (;;) yield POINT;
    })(),
  );
  expect(run(scheduler, 50)).toBe(false);
  expect(scheduler.stepCount).toBe(50);
});

test('what a fault delays happens when nothing else can', () => {
  const scheduler = new ExplorerScheduler();
  const done: string[] = [];
  const queue = scheduler.add(new QueueActor<string>('irq', 'used', (item) => done.push(item)));
  const released = new WaitQueue();
  queue.push('late', 0);
  queue.notBeforeStep = 1000;
  foreground(
    scheduler,
    'thread',
    (function* (): Kthread {
      yield POINT;
      done.push('first');
      yield { kind: 'wait', queue: released };
    })(),
  );
  run(scheduler);
  expect(done).toEqual(['first', 'late']);
});

test('who waits for a condition goes on when it holds, or when nothing else can run', () => {
  const scheduler = new ExplorerScheduler();
  const seen: string[] = [];
  let isThere = false;
  foreground(
    scheduler,
    'waiter',
    (function* (): Kthread {
      yield scheduler.until(() => isThere);
      seen.push(`there: ${isThere}`);
      yield scheduler.until(() => false);
      seen.push('gave up');
    })(),
  );
  foreground(
    scheduler,
    'maker',
    (function* (): Kthread {
      yield POINT;
      isThere = true;
      yield POINT;
    })(),
  );
  expect(run(scheduler)).toBe(true);
  expect(seen).toEqual(['there: true', 'gave up']);
});

test('vCPUs and device stand still while the machine is stopped', () => {
  const scheduler = new ExplorerScheduler();
  foreground(
    scheduler,
    'guest',
    (function* (): Kthread {
      yield POINT;
    })(),
  );
  scheduler.machineRuns = false;
  expect(run(scheduler)).toBe(false);
  expect(scheduler.stepCount).toBe(0);
});

test('an assertion of the code is a violation of that name', () => {
  const scheduler = new ExplorerScheduler();
  foreground(
    scheduler,
    'thread',
    (function* (): Kthread {
      yield POINT;
      assert(false, 'a page is freed once');
    })(),
  );
  expect(() => run(scheduler)).toThrow(Violation);
  expect(Violation.of(new TypeError('no page 17')).invariant).toBe(
    'exception TypeError: no page N',
  );
});

import { expect, test } from 'vitest';
import type { Kernel } from '../../../../guest/kernel/kernel.ts';
import { WorkItem } from '../../../../guest/kernel/work-item.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import { Scheduler } from '../../../../guest/sched/scheduler.ts';

function machine(bodyNs = 0) {
  const scheduler = new Scheduler(1);
  const ranAt: number[] = [];
  const kernel = {
    get now() {
      return scheduler.now;
    },
    spawn: (_name: string, body: () => Kthread) => scheduler.spawn(body),
  } as unknown as Kernel;
  const work = new WorkItem(kernel, 'work', function* () {
    ranAt.push(scheduler.now);
    if (bodyNs > 0) yield { kind: 'sleep', ns: bodyNs };
  });
  work.start();
  work.start();
  const runUntil = (ns: number) => scheduler.run(ns, 0);
  return { scheduler, work, ranAt, runUntil };
}

test('runs once when it is due, however often it is queued before', () => {
  const { work, ranAt, runUntil } = machine();
  work.queue(100);
  work.queue(50);
  runUntil(1000);
  expect(ranAt).toEqual([100]);
});

test('runs again when it is queued while it runs', () => {
  const { work, ranAt, runUntil } = machine(100);
  work.queue(10);
  runUntil(50);
  work.queue(60);
  runUntil(1000);
  expect(ranAt).toEqual([10, 110]);
});

test('does not run once it is cancelled, and may be queued again', () => {
  const { scheduler, work, ranAt, runUntil } = machine();
  work.queue(100);
  runUntil(50);
  scheduler.spawn(() => work.cancel());
  runUntil(60);
  work.queue(300);
  runUntil(1000);
  expect(ranAt).toEqual([300]);
});

test('is not cancelled before what runs has ended', () => {
  const { scheduler, work, ranAt, runUntil } = machine(100);
  work.queue(10);
  runUntil(20);
  let endedAt = 0;
  scheduler.spawn(function* () {
    work.queue(30);
    yield* work.cancel();
    endedAt = scheduler.now;
  });
  runUntil(1000);
  expect(endedAt).toBe(110);
  expect(ranAt).toEqual([10]);
});

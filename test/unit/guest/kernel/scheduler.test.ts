import { describe, expect, test } from 'vitest';
import { type Kthread, WaitQueue } from '../../../../guest/sched/kthread.ts';
import { Scheduler, type Workload } from '../../../../guest/sched/scheduler.ts';

const NOTIFY_NS = 20;

/** An event every `gapNs`, remembered with its time. */
class Metronome implements Workload {
  readonly times: number[] = [];
  readonly #gapNs: number;

  constructor(gapNs: number) {
    this.#gapNs = gapNs;
  }

  nextAt(freeAt: number): number {
    return Math.max(freeAt, (this.times.length + 1) * this.#gapNs);
  }

  advance(freeAt: number, until: number): number {
    for (let at = this.nextAt(freeAt); at <= until; at = this.nextAt(freeAt)) this.times.push(at);
    return this.times.at(-1) ?? 0;
  }
}

describe('kernel threads', () => {
  test('share a vCPU in the order in which they ask for it, and sleep beside each other', () => {
    const scheduler = new Scheduler(1);
    const seen: string[] = [];
    const note = (what: string) => void seen.push(`${what} at ${scheduler.now}`);
    function* worker(name: string): Kthread {
      yield { kind: 'cpu', ns: 10 };
      note(`${name} computed`);
      yield { kind: 'sleep', ns: 100 };
      note(`${name} slept`);
    }
    scheduler.spawn(() => worker('a'));
    scheduler.spawn(() => worker('b'));
    expect(scheduler.run(1000, NOTIFY_NS)).toEqual({ kind: 'until' });
    expect(seen).toEqual([
      'a computed at 10',
      'b computed at 20',
      'a slept at 110',
      'b slept at 120',
    ]);
    expect([scheduler.now, scheduler.kthreadCpuNs]).toEqual([1000, 20]);
  });

  test('wake in the order in which they began to wait', () => {
    const scheduler = new Scheduler(1);
    const queue = new WaitQueue();
    const woken: string[] = [];
    function* waiter(name: string): Kthread {
      yield { kind: 'wait', queue };
      woken.push(name);
    }
    function* waker(): Kthread {
      yield { kind: 'sleep', ns: 50 };
      queue.wake();
      queue.wake();
    }
    for (const name of ['a', 'b']) scheduler.spawn(() => waiter(name));
    scheduler.spawn(waker);
    scheduler.run(49, NOTIFY_NS);
    expect(woken).toEqual([]);
    scheduler.run(50, NOTIFY_NS);
    expect(woken).toEqual(['a', 'b']);
  });

  test('stop the machine for a device access, and go on with its answer', () => {
    const scheduler = new Scheduler(1);
    const question = { name: 'getStatus' } as const;
    const answers: unknown[] = [];
    scheduler.spawn(function* (): Kthread {
      yield { kind: 'sleep', ns: 5 };
      answers.push(yield { kind: 'access', message: question });
    });
    expect(scheduler.run(100, NOTIFY_NS)).toEqual({ kind: 'access', message: question });
    expect([scheduler.now, scheduler.accessPending]).toEqual([5, true]);
    expect(() => scheduler.run(100, NOTIFY_NS)).toThrow('does not run');
    scheduler.completeAccess({ name: 'status', status: 7 });
    expect(scheduler.run(100, NOTIFY_NS)).toEqual({ kind: 'until' });
    expect(answers).toEqual([{ name: 'status', status: 7 }]);
  });

  test.each([
    { grantNs: 1000, stoppedAt: 30, why: 'its latency after the first' },
    { grantNs: 15, stoppedAt: 15, why: 'the end of a shorter grant' },
  ])('that notify the host run on until $why', ({ grantNs, stoppedAt }) => {
    const scheduler = new Scheduler(1);
    scheduler.spawn(function* (): Kthread {
      yield { kind: 'sleep', ns: 10 };
      scheduler.notify();
      yield { kind: 'sleep', ns: 3 };
      scheduler.notify();
    });
    expect(scheduler.run(grantNs, NOTIFY_NS)).toEqual({ kind: 'notify' });
    expect(scheduler.now).toBe(stoppedAt);
  });
});

describe('a workload', () => {
  function* busy(): Kthread {
    yield { kind: 'sleep', ns: 15 };
    yield { kind: 'cpu', ns: 20 };
  }

  test.each([
    { vcpus: 1, times: [10, 35, 35, 40], effect: 'stalls behind' },
    { vcpus: 2, times: [10, 20, 30, 40], effect: 'moves away from' },
  ])('on $vcpus vCPUs $effect a busy kernel thread', ({ vcpus, times }) => {
    const scheduler = new Scheduler(vcpus);
    const workload = new Metronome(10);
    scheduler.setWorkload(workload);
    scheduler.spawn(busy);
    scheduler.run(40, NOTIFY_NS);
    expect(workload.times).toEqual(times);
  });

  test('does nothing beyond the granted time', () => {
    const scheduler = new Scheduler(1);
    const workload = new Metronome(10);
    scheduler.setWorkload(workload);
    scheduler.run(25, NOTIFY_NS);
    expect([workload.times, scheduler.now]).toEqual([[10, 20], 25]);
    scheduler.run(30, NOTIFY_NS);
    expect(workload.times).toEqual([10, 20, 30]);
  });
});

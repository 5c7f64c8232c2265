import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { EventQueue } from '../../../shared/index.ts';

function drain<T>(queue: EventQueue<T>): T[] {
  const taken: T[] = [];
  for (let event = queue.take(); event; event = queue.take()) taken.push(event.value);
  return taken;
}

describe('an event queue', () => {
  test('gives events by time, and those of one instant in the order they were asked for', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(20)), (times) => {
        const queue = new EventQueue<[at: number, index: number]>();
        for (const [index, at] of times.entries()) queue.schedule(at, [at, index]);
        const expected = times
          .map((at, index): [number, number] => [at, index])
          .sort((a, b) => a[0] - b[0] || a[1] - b[1]);
        expect(drain(queue)).toEqual(expected);
      }),
    );
  });

  test('never gives what was cancelled, wherever it stands', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(20), fc.boolean())), (events) => {
        const queue = new EventQueue<number>();
        const handles = events.map(([at], index) => queue.schedule(at, index));
        events.forEach(([, cancel], index) => {
          if (cancel) queue.cancel(handles[index]!);
        });
        const kept = events.flatMap(([, cancel], index) => (cancel ? [] : [index]));
        expect(drain(queue).sort((a, b) => a - b)).toEqual(kept);
      }),
    );
  });

  test('tells the time of the next event that will happen, Infinity when there is none', () => {
    const queue = new EventQueue<string>();
    expect(queue.nextAt).toBe(Number.POSITIVE_INFINITY);
    const first = queue.schedule(5, 'first');
    queue.schedule(7, 'second');
    expect(queue.nextAt).toBe(5);
    queue.cancel(first);
    expect(queue.nextAt).toBe(7);
    queue.take();
    queue.cancel(first);
    expect(queue.take()).toBeUndefined();
  });

  test.each([-1, 0.5, Number.NaN])('refuses the time %s', (at) => {
    expect(() => new EventQueue<null>().schedule(at, null)).toThrow('integer');
  });
});

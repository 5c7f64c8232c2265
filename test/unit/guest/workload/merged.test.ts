import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Workload } from '../../../../guest/sched/scheduler.ts';
import { MergedWorkload } from '../../../../guest/workload/merged.ts';

/** Events at given times, each noted in a common list. */
function part(name: string, times: readonly number[], seen: [number, string][]): Workload {
  let next = 0;
  let last = 0;
  return {
    nextAt: (freeAt) => Math.max(freeAt, times[next] ?? Number.POSITIVE_INFINITY),
    advance: (freeAt, until) => {
      while (next < times.length && Math.max(freeAt, times[next]!) <= until) {
        last = Math.max(freeAt, times[next++]!);
        seen.push([last, name]);
      }
      return last;
    },
  };
}

const timesOf = fc.array(fc.nat(50), { maxLength: 12 }).map((list) => list.sort((a, b) => a - b));

test('merged workloads do all their events in time order', () => {
  fc.assert(
    fc.property(fc.array(timesOf, { minLength: 1, maxLength: 4 }), (lists) => {
      const seen: [number, string][] = [];
      const merged = new MergedWorkload(lists.map((times, i) => part(`${i}`, times, seen)));
      for (let at = merged.nextAt(0); at < Number.POSITIVE_INFINITY; at = merged.nextAt(0)) {
        expect(merged.advance(0, at)).toBe(at);
      }
      expect(seen.map(([at]) => at)).toEqual(lists.flat().sort((a, b) => a - b));
    }),
  );
});

test('at one instant the first of the list goes first', () => {
  const seen: [number, string][] = [];
  const merged = new MergedWorkload([part('replay', [5], seen), part('ticks', [5], seen)]);
  merged.advance(0, 5);
  merged.advance(0, 5);
  expect(seen).toEqual([
    [5, 'replay'],
    [5, 'ticks'],
  ]);
});

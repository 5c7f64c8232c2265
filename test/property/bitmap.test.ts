/** The bitmap against an array of booleans. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Bitmap } from '../../shared/index.ts';

const BITS = 150;
const range = fc
  .tuple(fc.nat(BITS), fc.nat(BITS))
  .map(([a, b]) => ({ start: Math.min(a, b), count: Math.abs(a - b) }));
const step = fc.oneof(
  fc.record({ op: fc.constantFrom('set' as const, 'clear' as const), at: fc.nat(BITS - 1) }),
  fc.record({ op: fc.constantFrom('setRange' as const, 'clearRange' as const), range }),
);

const script = fc.array(step, { maxLength: 30 });

function build(steps: typeof script extends fc.Arbitrary<infer T> ? T : never): {
  bitmap: Bitmap;
  model: boolean[];
} {
  const bitmap = new Bitmap(BITS);
  const model = new Array<boolean>(BITS).fill(false);
  for (const one of steps) {
    if ('at' in one) {
      bitmap[one.op](one.at);
      model[one.at] = one.op === 'set';
    } else {
      const { start, count } = one.range;
      bitmap[one.op](start, count);
      model.fill(one.op === 'setRange', start, start + count);
    }
  }
  return { bitmap, model };
}

test('sets, clears, counts and finds bits as an array of booleans does', () => {
  fc.assert(
    fc.property(script, range, fc.nat(BITS - 1), (steps, { start, count }, from) => {
      const { bitmap, model } = build(steps);
      expect(Array.from({ length: BITS }, (_, i) => bitmap.get(i))).toEqual(model);
      expect(bitmap.count()).toBe(model.filter(Boolean).length);
      expect(bitmap.countRange(start, count)).toBe(
        model.slice(start, start + count).filter(Boolean).length,
      );
      expect(bitmap.nextSet(from)).toBe(model.indexOf(true, from));
      const clear = model.indexOf(false, from);
      expect(bitmap.nextClear(from)).toBe(clear < 0 ? BITS : clear);
    }),
  );
});

test('joins and compares two sets as sets', () => {
  fc.assert(
    fc.property(script, script, (first, second) => {
      const a = build(first);
      const b = build(second);
      const both = a.model.filter((bit, i) => bit && b.model[i]).length;
      const onlyA = a.model.filter((bit, i) => bit && !b.model[i]).length;
      const onlyB = b.model.filter((bit, i) => bit && !a.model[i]).length;
      expect(a.bitmap.countAnd(b.bitmap)).toBe(both);
      expect(a.bitmap.countAndNot(b.bitmap)).toBe(onlyA);
      expect(a.bitmap.or(b.bitmap)).toBe(onlyB);
      expect(a.bitmap.count()).toBe(both + onlyA + onlyB);
    }),
  );
});

import { describe, expect, test } from 'vitest';
import { Prng } from '../../../shared/index.ts';

const draw = (prng: Prng, count = 8) => Array.from({ length: count }, () => prng.nextU32());

describe('the random numbers', () => {
  test('are the same for the same seed, and others for another one', () => {
    expect(draw(new Prng(1))).toEqual(draw(new Prng(1)));
    expect(draw(new Prng(1))).not.toEqual(draw(new Prng(2)));
    expect(new Set(draw(new Prng(0), 100)).size).toBeGreaterThan(95);
  });

  test('of two named streams do not depend on each other', () => {
    const parent = new Prng(7);
    const alone = draw(new Prng(7).split('link'));
    const other = parent.split('guest');
    draw(other, 100);
    expect(draw(parent.split('link'))).toEqual(alone);
    expect(draw(parent.split('guest'))).not.toEqual(alone);
  });

  test.each([1, 2, 3, 10, 1000])('below %i fall evenly into its range', (count) => {
    const draws = 2000 * Math.min(count, 10);
    const buckets = new Float64Array(Math.min(count, 10));
    const prng = new Prng(3);
    for (let i = 0; i < draws; i++) {
      const value = prng.below(count);
      expect(value >= 0 && value < count).toBe(true);
      buckets[Math.floor((value * buckets.length) / count)]! += 1;
    }
    for (const bucket of buckets) expect(Math.abs(bucket - 2000)).toBeLessThan(250);
  });

  test('decide with the probability that was asked for', () => {
    const prng = new Prng(5);
    let hits = 0;
    for (let i = 0; i < 10_000; i++) if (prng.chance(1, 4)) hits++;
    expect(Math.abs(hits - 2500)).toBeLessThan(200);
    expect(prng.chance(0, 4)).toBe(false);
    expect(prng.chance(4, 4)).toBe(true);
  });
});

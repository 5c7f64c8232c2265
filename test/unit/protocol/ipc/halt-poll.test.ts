import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HaltPoll } from '../../../../protocol/ipc/halt-poll.ts';

/** Longer than anybody looks. */
const LONG_MS = 1;

beforeEach(() => void vi.useFakeTimers({ toFake: ['setImmediate', 'performance', 'setTimeout'] }));
afterEach(() => void vi.useRealTimers());

/** One wait of so long; whether the event loop was kept from sleeping. */
function wait(poll: HaltPoll, ms: number): boolean {
  poll.begin();
  const polls = vi.getTimerCount() > 0;
  vi.advanceTimersByTime(ms);
  poll.end();
  return polls;
}

/** The waits of many in which it looked. */
function looks(poll: HaltPoll, waits: number, ms: number): number[] {
  return Array.from({ length: waits }, (_, i) => i).filter(() => wait(poll, ms));
}

describe('halt polling', () => {
  it('looks while an answer is awaited, and sleeps when it is there', () => {
    const poll = new HaltPoll();
    expect(wait(poll, 0)).toBe(true);
    vi.runAllTimers();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('sleeps when the answer takes long', () => {
    const poll = new HaltPoll();
    poll.begin();
    vi.advanceTimersByTime(LONG_MS);
    expect(vi.getTimerCount()).toBe(0);
    poll.end();
  });

  it('looks in every wait as long as it helps', () => {
    const poll = new HaltPoll();
    expect(looks(poll, 100, 0)).toHaveLength(100);
  });

  it('looks ever more seldom where it was in vain, and again when it helps', () => {
    const poll = new HaltPoll();
    expect(looks(poll, 100, LONG_MS)).toEqual([0, 2, 5, 10, 19, 36, 69]);
    expect(looks(poll, 10_000, LONG_MS).length).toBeLessThan(16);
    const quick = looks(poll, 3000, 0);
    expect(quick.length).toBeGreaterThan(1900);
    expect(quick.at(-1)).toBe(2999);
  });
});

import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { EventLog } from '../../../shared/index.ts';

describe('the event log', () => {
  test('digests exactly the lines that a sink sees, however many', () => {
    const lines: string[] = [];
    const log = new EventLog((line) => lines.push(line));
    for (let i = 0; i < 2500; i++) log.add(i * 1000, 'tick', { index: i, odd: i % 2 === 1 });
    const text = lines.map((line) => `${line}\n`).join('');
    expect(log.digest()).toBe(createHash('sha256').update(text).digest('hex'));
    expect(log.lineCount).toBe(2500);
    expect(lines[1]).toBe('           1000 tick index=1 odd=true');
  });

  test('goes on after a digest was asked for', () => {
    const asked = new EventLog();
    const silent = new EventLog();
    asked.add(1, 'a');
    asked.digest();
    silent.add(1, 'a');
    asked.add(2, 'b');
    silent.add(2, 'b');
    expect(asked.digest()).toBe(silent.digest());
  });

  test.each([
    ['time', 2, 'a', { x: 1 }],
    ['event', 1, 'b', { x: 1 }],
    ['value', 1, 'a', { x: 2 }],
    ['key', 1, 'a', { y: 1 }],
  ])('depends on the %s of every line', (_what, at, event, fields) => {
    const one = new EventLog();
    const other = new EventLog();
    one.add(1, 'a', { x: 1 });
    other.add(at, event, fields as Record<string, number>);
    expect(other.digest()).not.toBe(one.digest());
  });
});

import { describe, expect, test } from 'vitest';
import { decodeMessage, encodeMessage, layoutHash, MESSAGES } from '../../../../protocol/index.ts';
import { clipString } from '../../../../protocol/ipc/validate.ts';

const run = MESSAGES.run.id;
const exit = MESSAGES.exit.id;

describe('decodeMessage', () => {
  test('gives the fields their names', () => {
    expect(decodeMessage([run, 7, 2 ** 53 - 1], 'host')).toEqual({
      name: 'run',
      until_ns: 7,
      notify_ns: 2 ** 53 - 1,
    });
  });

  test.each([
    { id: 'no array', value: 5, says: 'expected a message, found 5' },
    { id: 'an empty array', value: [], says: 'expected a message id, found undefined' },
    { id: 'an unknown id', value: [200], says: 'expected a message id, found 200' },
    { id: 'a fraction as id', value: [1.5], says: 'expected a message id, found 1.5' },
    { id: 'a negative id', value: [-1], says: 'expected a message id, found -1' },
    { id: 'a string as id', value: ['run', 1, 2], says: 'found a string of 3 characters' },
    { id: 'the name of an array method', value: ['map'], says: 'expected a message id' },
    { id: 'a field too few', value: [run, 1], says: 'run: expected 2 fields, found 1' },
    { id: 'a field too many', value: [run, 1, 2, 3], says: 'run: expected 2 fields, found 3' },
    {
      id: 'NaN',
      value: [run, Number.NaN, 0],
      says: 'run.until_ns: expected an integer in 0 … 2^53−1, found NaN',
    },
    { id: 'infinity', value: [run, Infinity, 0], says: 'found Infinity' },
    { id: 'a negative time', value: [run, -1, 0], says: 'found -1' },
    { id: 'a fraction', value: [run, 0.5, 0], says: 'found 0.5' },
    { id: '2^53', value: [run, 2 ** 53, 0], says: 'found 9007199254740992' },
    { id: 'a string as time', value: [run, '1', 0], says: 'found a string of 1 characters' },
    { id: 'nil', value: [run, null, 0], says: 'found null' },
    {
      id: 'a u16 too large',
      value: [MESSAGES.irq.id, 65536],
      says: 'irq.vector: expected an integer in 0 … 65535',
    },
    { id: 'a u32 too large', value: [MESSAGES.configChanged.id, 2 ** 32], says: '2^32−1' },
    { id: 'a number as boolean', value: [MESSAGES.getDirtyLog.id, 1], says: 'a boolean, found 1' },
    { id: 'a string as bytes', value: [MESSAGES.read.id, 'abcd'], says: 'expected bytes' },
    { id: 'a list as bytes', value: [MESSAGES.read.id, [1, 2]], says: 'found a list of 2' },
    {
      id: 'bytes as string',
      value: [MESSAGES.console.id, new Uint8Array(3)],
      says: 'found 3 bytes',
    },
    {
      id: 'a string too long',
      value: [MESSAGES.console.id, 'x'.repeat(4097)],
      says: 'at most 4096 characters',
    },
  ])('refuses $id', ({ value, says }) => {
    const attempt = () => decodeMessage(value, 'host');
    expect(attempt).toThrow(expect.objectContaining({ code: 'MESSAGE_INVALID' }));
    expect(attempt).toThrow(says);
  });

  test.each([
    { id: 'a u8 too large', value: [exit, 0, 256] },
    { id: 'an odd list of counters', value: [MESSAGES.statistics.id, ['a']] },
    { id: 'counters the wrong way round', value: [MESSAGES.statistics.id, [1, 'a']] },
    { id: 'a counter that is no number', value: [MESSAGES.statistics.id, ['a', Number.NaN]] },
    { id: 'too many counters', value: [MESSAGES.statistics.id, Array(513).fill(['a', 1]).flat()] },
    { id: 'too many lines', value: [MESSAGES.history.id, Array(257).fill('')] },
    { id: 'a line that is a number', value: [MESSAGES.history.id, ['', 1]] },
  ])('refuses $id from a guest', ({ value }) => {
    expect(() => decodeMessage(value, 'guest')).toThrow(
      expect.objectContaining({ code: 'MESSAGE_INVALID' }),
    );
  });

  test.each(Object.entries(MESSAGES))('lets only the right side send %s', (_, shape) => {
    for (const sender of ['host', 'guest'] as const) {
      const allowed = shape.from === 'both' || shape.from === sender;
      // No fields: a message that may be sent is refused for its arity, or accepted if it has none.
      let code = 'accepted';
      try {
        decodeMessage([shape.id], sender);
      } catch (error) {
        code = (error as { code: string }).code;
      }
      if (allowed) expect(code).not.toBe('MESSAGE_UNEXPECTED');
      else expect(code).toBe('MESSAGE_UNEXPECTED');
    }
  });
});

test('encodeMessage asserts our own bounds', () => {
  expect(encodeMessage({ name: 'irq', vector: 3 })).toEqual([MESSAGES.irq.id, 3]);
  expect(() => encodeMessage({ name: 'irq', vector: 70_000 })).toThrow('must hold: irq.vector');
});

test('the layout hash is fixed until the table changes', () => {
  expect(layoutHash()).toBe(layoutHash());
  expect(layoutHash()).toMatchInlineSnapshot(`1193112618`);
});

test('clipString keeps a line within a field', () => {
  expect(clipString('x'.repeat(5000))).toHaveLength(4096);
  expect(clipString('short')).toBe('short');
});

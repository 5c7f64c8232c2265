import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { agreementDigest, mustAgree, type Side } from '../../../../protocol/ipc/agreement.ts';

function side(role: Side['role'], ...agreement: string[]): Side {
  return { role, agreement, digest: agreementDigest(agreement) };
}

function refusal(theirs: Side, ours: Side): string | null {
  try {
    mustAgree(theirs, ours);
    return null;
  } catch (error) {
    expect(error).toMatchObject({ code: 'HELLO_MISMATCH' });
    return (error as Error).message;
  }
}

describe('two sides with a plan each', () => {
  test.each<[what: string, theirs: Side, ours: Side, message: string | null]>([
    ['the same', side('host', 'a=1', 'b=x'), side('guest', 'a=1', 'b=x'), null],
    ['none here', side('host', 'a=1'), side('guest'), null],
    ['none there', side('host'), side('guest', 'a=1'), null],
    [
      'another value',
      side('host', 'a=1', 'b=x'),
      side('guest', 'a=1', 'b=y'),
      'host and guest differ in b (host x, guest y)',
    ],
    [
      'a key more, and one less',
      side('source', 'a=1', 'b=x'),
      side('destination', 'a=1', 'c=='),
      'source and destination differ in b (source x, destination none), c (source none, destination =)',
    ],
    [
      'many',
      side('host', 'a=1', 'b=1', 'c=1', 'd=1', 'e=1'),
      side('guest', 'a=2', 'b=2', 'c=2', 'd=2', 'e=2'),
      'host and guest differ in a (host 1, guest 2), b (host 1, guest 2), c (host 1, guest 2), 2 more',
    ],
    [
      'another digest of the same lines',
      { ...side('host', 'a=1'), digest: 'f'.repeat(64) },
      side('guest', 'a=1'),
      'host and guest differ in the digest of their plans',
    ],
    [
      'words that a terminal would obey',
      side('host', `a\u001b[2J=\u0007${'x'.repeat(4000)}`),
      side('guest', 'a=1'),
      `host and guest differ in a (host none, guest 1), a [2J (host  ${'x'.repeat(38)}…, guest none)`,
    ],
  ])('%s', (_what, theirs, ours, message) => {
    expect(refusal(theirs, ours)).toBe(message);
  });

  test('refuse each other exactly when a setting differs, and name it from either side', () => {
    const settings = fc.dictionary(fc.stringMatching(/^[a-c]$/), fc.nat(2), { minKeys: 1 });
    const lines = (values: Record<string, number>) =>
      Object.entries(values)
        .map(([key, value]) => `${key}=${value}`)
        .sort();
    fc.assert(
      fc.property(settings, settings, (theirs, ours) => {
        const [host, guest] = [side('host', ...lines(theirs)), side('guest', ...lines(ours))];
        const keys = [...new Set([...Object.keys(theirs), ...Object.keys(ours)])].sort();
        const differing = keys.filter((key) => theirs[key] !== ours[key]);
        const [there, here] = [refusal(host, guest), refusal(guest, host)];
        expect(there === null).toBe(differing.length === 0);
        for (const message of [there, here]) {
          expect([...(message ?? '').matchAll(/(\w) \(/g)].map(([, key]) => key)).toEqual(
            differing,
          );
        }
      }),
    );
  });
});

/** Hostile peers: a fixed number of cases from fixed seeds, and what the fuzzer itself must do. */
import { describe, expect, test } from 'vitest';
import { kindsFor, placeOf, runCampaign, runSession } from '../../fuzz/campaign.ts';
import { DIRECTIONS, judge, type Kind, type Verdict } from '../../fuzz/case.ts';
import { type Draw, seedOf } from '../../fuzz/draw.ts';
import { KINDS } from '../../fuzz/kinds.ts';
import { minimise } from '../../fuzz/minimise.ts';

/** Of the slowest kind some hundred, of others some thousand: a few seconds each. */
const CASES = 6000;

test.each(
  DIRECTIONS.flatMap((direction) =>
    kindsFor(KINDS, direction).map((kind) => ({ direction, kind })),
  ),
)('$direction, $kind.name: every case ends as it must', async ({ kind }) => {
  const cases = kind.name === 'migration' || kind.name === 'sockets' ? CASES / 20 : CASES;
  const { failure, tally } = await runCampaign([kind], 1, cases, () => {});
  expect(failure).toBeNull();
  // Each thing that can be sent was sent, and more than one outcome was seen.
  const labels = [...(tally.get(kind.name)?.values() ?? [])];
  const outcomes = labels.flatMap((counts) => Object.entries(counts).filter(([, n]) => n > 0));
  expect(new Set(outcomes.map(([outcome]) => outcome)).size).toBeGreaterThan(1);
});

test.each(DIRECTIONS)('%s: the same seed gives the same cases and verdicts', async (direction) => {
  const kinds = kindsFor(KINDS, direction);
  const once = await runCampaign(kinds, 7, 1500, () => {});
  const again = await runCampaign(kinds, 7, 1500, () => {});
  expect([...again.tally]).toEqual([...once.tally]);
  const other = await runCampaign(kinds, 8, 1500, () => {});
  expect([...other.tally]).not.toEqual([...once.tally]);
});

/** Fails at the second case that draws more than 1000, if one below 10 came before it. */
const PLANTED: Kind = {
  name: 'planted',
  direction: 'guest-to-host',
  about: 'a failure that needs two cases',
  weight: 1,
  casesPerSession: 64,
  open: () => {
    let armed = false;
    return {
      trace: [],
      next(draw: Draw): Verdict {
        const value = draw.below(4000);
        draw.bytes(20);
        if (armed && value > 1000) throw new Error('planted');
        if (value < 100) armed = true;
        return judge('any', 'served', ['served']);
      },
      close: () => null,
    };
  },
};

describe('a failure', () => {
  test('ends the campaign, with the number of its case', async () => {
    const { failure, cases } = await runCampaign([PLANTED], 1, 100_000, () => {});
    expect(failure?.problem).toContain('planted');
    expect(cases).toBe((failure?.case ?? 0) + 1);
  });

  test('is made smaller: fewest cases, plainest decisions', async () => {
    const { failure } = await runCampaign([PLANTED], 1, 100_000, () => {});
    const place = placeOf([PLANTED], 1, failure!.case);
    const count = failure!.case - place.firstCase + 1;
    const sources = Array.from({ length: count }, (_, i) => seedOf(1, place.session, i));
    const found = await runSession(place, 1, sources);
    const { failure: minimal } = await minimise(place, 1, found!);
    expect(minimal.tapes).toHaveLength(2);
    expect(minimal.tapes[0]!.every((value) => value === 0)).toBe(true);
    expect(minimal.tapes[1]![0]).toBe(1001);
  });

  test('is an outcome that its case does not allow', () => {
    expect(judge('x', 'served', ['counted', 'broken']).problem).toBe(
      'x: served, expected counted or broken',
    );
    expect(judge('x', 'broken', ['counted', 'broken']).problem).toBeNull();
  });

  test('is any exception but a session that ends by one line', async () => {
    const kind = (error: Error): Kind => ({
      ...PLANTED,
      open: () => ({
        trace: [],
        next: () => {
          throw error;
        },
        close: () => null,
      }),
    });
    const { failure } = await runCampaign([kind(new RangeError('too deep'))], 1, 10, () => {});
    expect(failure?.problem).toContain('RangeError: too deep');
  });
});

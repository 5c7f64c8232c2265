/** Hints and balloon pages a second, end to end between the real guest and the real host. */
import type { Bench, BenchContext, Figure } from './figure.ts';
import { BenchProcess, type Measured, temporarySocket } from './process/start.ts';

/** 8 GiB: with every other frame free, about a million hints of one page. */
const HINT_RAM_PAGES = 1 << 21;
/** 4 GiB, of which the balloon takes nine tenths. */
const BALLOON_RAM_PAGES = 1 << 20;

export const benchHints: Bench = async (context) => {
  const samples: number[] = [];
  await repeat(context, 'one-page hints', async () => {
    const measured = await runPair('hints', HINT_RAM_PAGES, true);
    if (measured.kind === 'hints') return () => samples.push(measured.hints / measured.ms / 1e3);
    return () => undefined;
  });
  return [figure('hints', 'one-page hints, guest to host', samples)];
};

export const benchBalloon: Bench = async (context) => {
  const inflate: number[] = [];
  const deflate: number[] = [];
  await repeat(context, 'inflate and deflate', async () => {
    const measured = await runPair('balloon', BALLOON_RAM_PAGES, false);
    return () => {
      if (measured.kind !== 'balloon') return;
      inflate.push(measured.pages / measured.inflateMs / 1e3);
      deflate.push(measured.pages / measured.deflateMs / 1e3);
    };
  });
  return [figure('balloon', 'PFNs inflated', inflate), figure('balloon', 'PFNs deflated', deflate)];
};

function figure(bench: string, name: string, samples: readonly number[]): Figure {
  return { bench, name, unit: 'M/s', samples, target: { of: 'value', atLeast: 1 } };
}

/** One run that does not count, then the others; each `run` returns how to keep its result. */
async function repeat(
  context: BenchContext,
  what: string,
  run: () => Promise<() => unknown>,
): Promise<void> {
  for (let i = 0; i <= context.runs; i++) {
    context.progress(`${what}, ${i === 0 ? 'warm-up' : `run ${i} of ${context.runs}`}`);
    const keep = await run();
    if (i > 0) keep();
  }
}

async function runPair(
  measure: 'hints' | 'balloon',
  ramPages: number,
  fragmented: boolean,
): Promise<Measured> {
  using socket = temporarySocket();
  const address = { kind: 'unix', path: socket.path } as const;
  using host = new BenchProcess({ role: 'host', address, measure });
  await host.next();
  using guest = new BenchProcess({ role: 'guest', address, ramPages, fragmented });
  return (await Promise.race([host.next(), guest.next()])) as Measured;
}

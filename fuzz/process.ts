/** The process that runs the cases: started by main.ts, which watches it and gives up on a hang. */
import { BallastError, ExitStatus } from '../shared/index.ts';
import { exitWith, onLaboratoryGone } from '../shared/process.ts';
import { placeOf, runCampaign, runSession } from './campaign.ts';
import { seedOf } from './draw.ts';
import { KINDS } from './kinds.ts';
import { minimise } from './minimise.ts';
import type { FuzzReply, FuzzRequest } from './request.ts';

/** Cases between two signs of life, and how often at most. */
const REPORT_EVERY_CASES = 64;
const REPORT_EVERY_MS = 100;
/** Where the heap is looked at first: by then everything is compiled and every buffer has grown. */
const WARM_SHARE = 0.2;

function send(reply: FuzzReply): void {
  process.send?.(reply);
}

async function campaign({ direction, kinds: names, seed, cases }: FuzzRequest): Promise<void> {
  const kinds = KINDS.filter(
    (kind) => kind.direction === direction && (names.length === 0 || names.includes(kind.name)),
  );
  const startMs = performance.now();
  let lastMs = startMs;
  let warmHeapBytes: number | null = null;
  let peakHeapBytes = 0;
  const {
    tally,
    failure,
    cases: done,
  } = await runCampaign(kinds, seed, cases, (number) => {
    if (number % REPORT_EVERY_CASES !== 0) return;
    const nowMs = performance.now();
    if (nowMs - lastMs < REPORT_EVERY_MS) return;
    lastMs = nowMs;
    send({ kind: 'progress', case: number, ms: nowMs - startMs });
    if (warmHeapBytes === null && number > WARM_SHARE * cases) warmHeapBytes = heapBytes();
  });
  peakHeapBytes = heapBytes();
  send({
    kind: 'done',
    cases: done,
    ms: performance.now() - startMs,
    tally: [...tally].map(([kind, labels]) => [kind, [...labels]]),
    heapGrowthBytes: warmHeapBytes === null ? null : peakHeapBytes - warmHeapBytes,
    failure,
  });
}

/** One case again, after those that share its machine; a failure made smaller. */
async function repeat({
  direction,
  kinds: names,
  seed,
  cases: number,
}: FuzzRequest): Promise<void> {
  const kinds = KINDS.filter(
    (kind) => kind.direction === direction && (names.length === 0 || names.includes(kind.name)),
  );
  const place = placeOf(kinds, seed, number);
  const count = number - place.firstCase + 1;
  const sources = Array.from({ length: count }, (_, i) => seedOf(seed, place.session, i));
  const failure = await runSession(place, seed, sources, () => {
    send({ kind: 'progress', case: number, ms: 0 });
  });
  if (failure === null) {
    send({ kind: 'repeated', kindName: place.kind.name, before: count - 1, failure: null });
    return;
  }
  const minimal = await minimise(place, seed, failure, () => {
    send({ kind: 'progress', case: number, ms: 0 });
  });
  send({
    kind: 'repeated',
    kindName: place.kind.name,
    before: count - 1,
    failure: { ...minimal.failure, attempts: minimal.attempts },
  });
}

function heapBytes(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
}

process.on('message', (request: FuzzRequest) => {
  const work = request.task === 'campaign' ? campaign(request) : repeat(request);
  work.catch((error: unknown) => exitWith('fuzz', error));
});
process.on('uncaughtException', (error) => exitWith('fuzz', error));
onLaboratoryGone(() => process.exit(ExitStatus.OK));
if (!process.send) {
  exitWith(
    'fuzz',
    new BallastError('BAD_INPUT', 'started alone: expected to be started by `npm run fuzz`'),
  );
}

/**
 * The work of a ring as `avail` messages that are ready before the clock starts: what is measured
 * is our host, and the channel to it.
 */
import type { BallastMachine } from '../peers/ballast/machine.ts';
import { ExitReason, f64Bytes, type Message, u16Bytes, u32Bytes } from '../protocol/index.ts';
import { NS_PER_S } from '../shared/index.ts';
import { type PeerDriver, ringOf, type Work } from './peer-driver.ts';

const NEVER_NS = Number.MAX_SAFE_INTEGER;

/** Seconds of wall time. */
export async function measurePreparedFrames(
  driver: PeerDriver<BallastMachine>,
  work: Work,
): Promise<number> {
  const { machine } = driver;
  const { index: queue, size } = driver.queue(work.queue);
  const ring = ringOf(work, size);
  let seconds = 0;
  for (let round = 0; round < work.rounds; round++) {
    if (round > 0) await driver.touch(work);
    const batches = batchesOf(driver, work, queue, ring);
    let guestNowNs = machine.control.nowNs;
    let [given, done, startMs, endMs] = [0, 0, 0, 0];
    machine.standIn = (message) => {
      if (message.name === 'used' && message.queue === queue) {
        done += message.heads.length / 2;
        if (done === work.chainsPerRound) endMs = performance.now();
        return [];
      }
      if (message.name === 'irq') return [];
      if (message.name === 'console') {
        startMs = performance.now();
        return [];
      }
      if (message.name !== 'run') return null;
      const { until_ns, notify_ns } = message;
      const now = guestNowNs;
      const frame: Message[] = [];
      while (
        startMs > 0 &&
        given < work.chainsPerRound &&
        given + ring.batch - done <= ring.chains
      ) {
        frame.push(batches(given, now));
        given += ring.batch;
      }
      const notified = frame.length > 0;
      const at_ns = notified ? Math.min(until_ns, now + notify_ns) : until_ns;
      guestNowNs = at_ns;
      const reason = notified && at_ns < until_ns ? ExitReason.NOTIFY : ExitReason.UNTIL;
      return [...frame, { name: 'exit', at_ns, reason, idle_until_ns: NEVER_NS }];
    };
    await machine.wake();
    while (endMs === 0) await machine.control.advanceFor(NS_PER_S);
    machine.standIn = null;
    seconds += (endMs - startMs) / 1e3;
  }
  return seconds;
}

/** The batch that begins with a chain, notified at that time. */
function batchesOf(
  driver: PeerDriver,
  work: Work,
  queue: number,
  ring: ReturnType<typeof ringOf>,
): (first: number, atNs: number) => Message<'avail'> {
  const prepared: Omit<Message<'avail'>, 'at_ns'>[] = [];
  for (let first = 0; first < work.chainsPerRound; first += ring.batch) {
    prepared.push(batchOf(driver, work, queue, first, ring));
  }
  const times = new Float64Array(ring.batch);
  return (first, atNs) => {
    times.fill(atNs);
    return { ...prepared[first / ring.batch]!, at_ns: f64Bytes(times) };
  };
}

function batchOf(
  driver: PeerDriver,
  work: Work,
  queue: number,
  first: number,
  { batch, chains, descriptors }: ReturnType<typeof ringOf>,
): Omit<Message<'avail'>, 'at_ns'> {
  const made = Array.from({ length: batch }, (_, i) => driver.chain(work, first + i));
  const out = made.map((chain) => driver.bytesOf(chain));
  const segments = made.flatMap((chain) => chain.in ?? []);
  return {
    name: 'avail',
    queue,
    heads: u16Bytes(Uint16Array.from(made, (_, i) => ((first + i) % chains) * descriptors)),
    out_bytes: u32Bytes(Uint32Array.from(out, (bytes) => bytes.length)),
    out: Buffer.concat(out),
    in_count: u16Bytes(Uint16Array.from(made, (chain) => chain.in?.length ?? 0)),
    in_gpa: f64Bytes(Float64Array.from(segments, ({ gpa }) => gpa)),
    in_bytes: u32Bytes(Uint32Array.from(segments, ({ lengthBytes }) => lengthBytes)),
  };
}

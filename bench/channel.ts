/** The channel between two processes, beside the same bytes through a bare socket. */
import { connect as connectRaw, type Socket } from 'node:net';
import {
  encodeFrame,
  type GuestLink,
  hostHello,
  hostLink,
  listen,
  type Message,
  u32Bytes,
} from '../protocol/index.ts';
import { assert, PAGE_SIZE_BYTES } from '../shared/index.ts';
import { type Bench, type BenchContext, type Figure, type Reference, sample } from './figure.ts';
import { BenchProcess, temporarySocket } from './process/start.ts';
import { runReference } from './reference/c.ts';

const ROUND_TRIPS = 5_000;
/** Round trips at a time, ours and raw ones in turn: how fast a process wakes up changes with the moment. */
const TRIPS_AT_ONCE = 250;
const MESSAGES = 100_000;
const BATCH = 256;
const BATCHES = 2_000;
/** Frames in flight where the sender need not wait. */
const WINDOW = 8;
const PAGES_PER_READ = 256;
const PAGE_READS = 400;
const TAGS_PER_READ = 1024;
const TAG_READS = 10_000;

/** A small message that is answered by a small message. */
const SMALL: Message = { name: 'getHistory', pfn: 123_456 };

export const benchChannel: Bench = async (context) => [
  ...(await benchMessages(context)),
  await benchPages(context),
  await benchTags(context),
];

async function benchMessages({ runs, cReference, progress }: BenchContext): Promise<Figure[]> {
  progress('messages');
  using peer = await channelTo(4);
  const { link, raw } = peer;
  const one = [SMALL];
  const batch = new Array<Message>(BATCH).fill(SMALL);
  const oneBytes = encodeFrame(one).length;
  const batchBytes = encodeFrame(batch).length;
  const trips = await roundTrips(runs, link, raw);
  const samples = await sample(runs, {
    single: async () => MESSAGES / (await exchangeAll(link, one, MESSAGES, BATCH)),
    rawSingle: async () => MESSAGES / (await raw.echoAll(oneBytes, MESSAGES, BATCH)),
    batched: async () => (BATCH * BATCHES) / (await exchangeAll(link, batch, BATCHES, WINDOW)),
    rawBatched: async () => (BATCH * BATCHES) / (await raw.echoAll(batchBytes, BATCHES, WINDOW)),
  });
  const bench = 'channel';
  const rawTrip = { name: 'raw Node', samples: trips.raw };
  const rawSingle = { name: 'raw Node', samples: samples.rawSingle };
  const rawBatched = { name: 'raw Node', samples: samples.rawBatched };
  const oneWrite = { name: 'one write each', samples: samples.single };
  const figures: Figure[] = [
    {
      bench,
      name: 'round trip',
      unit: 'µs',
      samples: trips.ours,
      reference: rawTrip,
      target: { of: 'ratio', atMost: 1.3 },
    },
    {
      bench,
      name: 'messages answered, one write each',
      unit: 'M/s',
      samples: samples.single,
      reference: rawSingle,
    },
    {
      bench,
      name: `messages answered, ${BATCH} a frame`,
      unit: 'M/s',
      samples: samples.batched,
      reference: oneWrite,
      target: { of: 'ratio', atLeast: 10 },
    },
    {
      bench,
      name: `messages answered, ${BATCH} a frame`,
      unit: 'M/s',
      samples: samples.batched,
      reference: rawBatched,
    },
  ];
  if (cReference) {
    const { trip } = await sample(runs, {
      trip: () => runReference(cReference, 'pingpong', ROUND_TRIPS, oneBytes) / ROUND_TRIPS / 1e3,
    });
    figures.splice(1, 0, {
      bench,
      name: 'round trip',
      unit: 'µs',
      samples: trips.ours,
      reference: { name: 'C', samples: trip },
    });
  }
  return figures;
}

/** Microseconds of a round trip through the channel, and of as many bytes through a bare socket. */
async function roundTrips(
  runs: number,
  link: GuestLink,
  raw: RawEcho,
): Promise<{ ours: number[]; raw: number[] }> {
  const one = [SMALL];
  const bytes = encodeFrame(one).length;
  const trips = { ours: [] as number[], raw: [] as number[] };
  for (let run = -1; run < runs; run++) {
    let [oursUs, rawUs] = [0, 0];
    for (let done = 0; done < ROUND_TRIPS; done += TRIPS_AT_ONCE) {
      oursUs += await exchangeAll(link, one, TRIPS_AT_ONCE, 1);
      rawUs += await raw.echoAll(bytes, TRIPS_AT_ONCE, 1);
    }
    if (run < 0) continue;
    trips.ours.push(oursUs / ROUND_TRIPS);
    trips.raw.push(rawUs / ROUND_TRIPS);
  }
  return trips;
}

/** 4 KiB records: what a guest with real page contents sends. */
async function benchPages({ runs, cReference, progress }: BenchContext): Promise<Figure> {
  progress('pages');
  using peer = await channelTo(PAGE_SIZE_BYTES);
  const read: Message[] = [{ name: 'read', ranges: u32Bytes(Uint32Array.of(0, PAGES_PER_READ)) }];
  const pages = PAGES_PER_READ * PAGE_READS;
  const chunkBytes = PAGES_PER_READ * PAGE_SIZE_BYTES;
  const { link } = peer;
  // The first gibibyte pays for memory that the later ones find touched.
  await exchangeAll(link, read, 3 * PAGE_READS, WINDOW);
  const { channel, c } = await sample(runs, {
    channel: async () => pages / (await exchangeAll(link, read, PAGE_READS, WINDOW)),
    c: () =>
      cReference
        ? (pages * 1e3) / runReference(cReference, 'stream', pages * PAGE_SIZE_BYTES, chunkBytes)
        : Number.NaN,
  });
  const reference: Reference = { name: 'C', samples: c };
  return {
    bench: 'channel',
    name: `pages of 4 KiB, ${PAGES_PER_READ} a frame`,
    unit: 'M/s',
    samples: channel,
    ...(cReference ? { reference } : {}),
    target: { of: 'ratio', atLeast: 0.25 },
  };
}

/** Content tags, ranges asked for and records answered: what the emulated guest sends. */
async function benchTags({ runs, progress }: BenchContext): Promise<Figure> {
  progress('tags');
  using peer = await channelTo(4);
  const read: Message[] = [{ name: 'read', ranges: u32Bytes(Uint32Array.of(0, TAGS_PER_READ)) }];
  const { link } = peer;
  const { tags } = await sample(runs, {
    tags: async () =>
      (TAGS_PER_READ * TAG_READS) / (await exchangeAll(link, read, TAG_READS, WINDOW)),
  });
  return {
    bench: 'channel',
    name: `page tags of 4 bytes, ${TAGS_PER_READ} a frame`,
    unit: 'M/s',
    samples: tags,
    target: { of: 'value', atLeast: 30 },
  };
}

/** Microseconds for `count` exchanges of the frame, `window` of them in flight. */
async function exchangeAll(
  link: GuestLink,
  frame: readonly Message[],
  count: number,
  window: number,
): Promise<number> {
  const start = performance.now();
  let sent = 0;
  const worker = async (): Promise<void> => {
    while (sent < count) {
      sent++;
      const { length } = await link.exchange(frame);
      assert(length === frame.length, 'each message is answered by one');
    }
  };
  await Promise.all(Array.from({ length: window }, worker));
  return (performance.now() - start) * 1e3;
}

interface ChannelPeer extends Disposable {
  readonly link: GuestLink;
  readonly raw: RawEcho;
}

async function channelTo(recordSizeBytes: number): Promise<ChannelPeer> {
  using socket = temporarySocket();
  const address = { kind: 'unix', path: socket.path } as const;
  const rawPath = `${socket.path}-raw`;
  const listener = await listen(address);
  const peer = new BenchProcess({ role: 'channel', address, recordSizeBytes, rawPath });
  const link = hostLink(await listener.accept());
  await listener.close();
  await hostHello(link);
  const rawSocket = connectRaw({ path: rawPath });
  await new Promise((resolve) => rawSocket.once('connect', resolve));
  const end = (): void => {
    rawSocket.destroy();
    peer[Symbol.dispose]();
  };
  return { link, raw: new RawEcho(rawSocket), [Symbol.dispose]: end };
}

class RawEcho {
  readonly #socket: Socket;
  #received = 0;
  #onBytes: () => void = () => {};

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk) => {
      this.#received += chunk.length;
      this.#onBytes();
    });
    socket.on('error', () => {});
  }

  /** Microseconds until `count` messages of `bytes` came back, `window` of them in flight. */
  echoAll(bytes: number, count: number, window: number): Promise<number> {
    const message = new Uint8Array(bytes).fill(1);
    const start = performance.now();
    let sent = 0;
    this.#received = 0;
    return new Promise((resolve) => {
      this.#onBytes = () => {
        const back = Math.floor(this.#received / bytes);
        if (back === count) resolve((performance.now() - start) * 1e3);
        for (; sent < count && sent - back < window; sent++) this.#socket.write(message);
      };
      this.#onBytes();
    });
  }
}

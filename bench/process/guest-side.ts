/** The guest's end of the benchmarks: a raw echo, the bare channel, and the real guest. */
import { createServer } from 'node:net';
import { Guest } from '../../guest/machine/guest.ts';
import { Gfp, type PageAllocator } from '../../guest/mm/index.ts';
import {
  type Address,
  connect,
  type GuestConfig,
  type Message,
  serveGuest,
  toUint32,
} from '../../protocol/index.ts';
import { assert, DEFAULT_COSTS } from '../../shared/index.ts';
import type { Start } from './start.ts';

const CONNECT_TIMEOUT_MS = 10_000;
/** More pages than one benchmark message asks for. */
const RECORD_PAGES = 1 << 16;

/** Sends back whatever comes. */
export function echoRaw(path: string): Promise<void> {
  const server = createServer((socket) => {
    socket.on('data', (chunk) => void socket.write(chunk));
    socket.on('error', () => process.exit(0));
  });
  return new Promise((resolve) => {
    server.listen(path, () => {
      process.send?.('ready');
      resolve();
    });
  });
}

/** Answers `getHistory` with nothing and `read` with records of the size; no machine behind it. */
export async function serveChannel(address: Address, recordSizeBytes: number): Promise<void> {
  const records = new Uint8Array(
    Math.min(RECORD_PAGES, (4 << 20) / recordSizeBytes) * recordSizeBytes,
  ).fill(1);
  const answer = (message: Message): Message => {
    if (message.name !== 'read') return { name: 'history', lines: [] };
    const ranges = toUint32(message.ranges) ?? new Uint32Array();
    let pages = 0;
    for (let i = 1; i < ranges.length; i += 2) pages += ranges[i]!;
    return { name: 'records', data: records.subarray(0, pages * recordSizeBytes) };
  };
  const socket = await connect(address, CONNECT_TIMEOUT_MS);
  const facts = { recordSizeBytes, ramPages: 1 << 18, vcpus: 1 };
  serveGuest(socket, (messages) => messages.map(answer), facts);
}

/** The guest process as it is, with a machine that has no recording. */
export async function serveGuestMachine(start: Start & { role: 'guest' }): Promise<void> {
  const guest = new Guest(guestConfigOf(start.ramPages), null);
  if (start.fragmented) fragment(guest.mm, start.ramPages);
  const socket = await connect(start.address, CONNECT_TIMEOUT_MS);
  serveGuest(socket, (messages) => guest.handle(messages), guest.facts);
}

export function guestConfigOf(ramPages: number): GuestConfig {
  return {
    seed: 1,
    ramPages,
    vcpus: 1,
    mm: { initOnAlloc: true, initOnFree: false, pagePoison: false },
    strategy: 'iterate',
    iterate: { budgetNodes: 1000, minOrder: 0 },
    recordingPath: null,
    costs: DEFAULT_COSTS,
    auditEveryEvents: 0,
    logPath: null,
  };
}

/** Takes all there is in pages, and gives every other frame back. */
function fragment(mm: PageAllocator, ramPages: number): void {
  const taken = new Uint8Array(ramPages);
  for (;;) {
    const pfn = mm.alloc(0, Gfp.GFP_HIGHUSER_MOVABLE);
    if (pfn < 0) break;
    taken[pfn] = 1;
  }
  for (let pfn = 0; pfn < ramPages; pfn += 2) if (taken[pfn] === 1) mm.free(pfn, 0);
  assert(mm.freePages() > ramPages / 4, 'a fragmented guest has free memory');
}

/** The guest's end of the channel benchmarks: a bare channel and a raw echo, no machine behind them. */
import { createServer } from 'node:net';
import { connect, type Message, serveGuest, toUint32 } from '../../protocol/index.ts';
import type { Start } from './start.ts';

const CONNECT_TIMEOUT_MS = 10_000;
/** Larger than any answer of a benchmark. */
const RECORD_BYTES = 4 << 20;

/** Answers `getHistory` with nothing and `read` with records of the size; echoes at `rawPath`. */
export async function serveChannel(start: Start & { role: 'channel' }): Promise<void> {
  const { recordSizeBytes } = start;
  const records = new Uint8Array(RECORD_BYTES).fill(1);
  const answer = (message: Message): Message => {
    if (message.name !== 'read') return { name: 'history', lines: [] };
    const ranges = toUint32(message.ranges) ?? new Uint32Array();
    let pages = 0;
    for (let i = 1; i < ranges.length; i += 2) pages += ranges[i]!;
    return { name: 'records', data: records.subarray(0, pages * recordSizeBytes) };
  };
  await echoRaw(start.rawPath);
  const socket = await connect(start.address, CONNECT_TIMEOUT_MS);
  const facts = { recordSizeBytes, ramPages: 1 << 18, vcpus: 1 };
  serveGuest(socket, (messages) => messages.map(answer), facts);
}

/** Sends back whatever comes. */
function echoRaw(path: string): Promise<void> {
  const server = createServer((socket) => {
    socket.on('data', (chunk) => void socket.write(chunk));
    socket.on('error', () => process.exit(0));
  });
  return new Promise((resolve) => {
    server.listen(path, resolve);
  });
}

import { chmodSync, lstatSync, rmSync } from 'node:fs';
import {
  createServer,
  connect as openSocket,
  type Server,
  Socket,
  type SocketConstructorOpts,
} from 'node:net';
import { BallastError } from '../../shared/index.ts';
import type { Address } from '../control.ts';
import { attachReceiver, Receiver } from './receiver.ts';

/**
 * Where the two processes meet: a unix socket (mode 0600, removed on close; a file that a dead
 * process left behind is replaced) or TCP.
 */

/** Bytes read from the kernel at once on the connecting side. */
const READ_BUFFER_BYTES = 1024 * 1024;

export interface Listener {
  /** The bound address: port 0 is filled in. */
  readonly address: Address;
  /** The next connection. Rejects with BallastError PEER_CLOSED once the listener is closed. */
  accept(): Promise<Socket>;
  close(): Promise<void>;
}

/** `unix:/path` or `tcp:host:port`; throws BallastError BAD_INPUT. */
export function parseAddress(text: string): Address {
  const unix = /^unix:(.+)$/.exec(text);
  if (unix?.[1]) return { kind: 'unix', path: unix[1] };
  const tcp = /^tcp:(\[[^\]]+\]|[^:]+):(\d{1,5})$/.exec(text);
  const port = Number(tcp?.[2]);
  if (tcp?.[1] && port <= 65535) {
    return { kind: 'tcp', host: tcp[1].replace(/^\[|\]$/g, ''), port };
  }
  throw new BallastError(
    'BAD_INPUT',
    `address: expected unix:/path or tcp:host:port, found ${JSON.stringify(text)}`,
  );
}

export function formatAddress(address: Address): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `tcp:${host}:${address.port}`;
}

/** Throws BallastError ADDRESS_IN_USE if somebody listens there, BAD_INPUT if nobody can. */
export async function listen(address: Address): Promise<Listener> {
  const server = createServer({ noDelay: true });
  try {
    await bind(server, address);
  } catch (error) {
    if (codeOf(error) !== 'EADDRINUSE' || !(await removeStale(address)))
      throw refused(address, error);
    await bind(server, address).catch((again) => {
      throw refused(address, again);
    });
  }
  if (address.kind === 'unix') chmodSync(address.path, 0o600);
  return new SocketListener(server, boundAddress(server, address));
}

/** Throws BallastError PEER_CLOSED when nobody answers within `timeoutMs`. */
export function connect(address: Address, timeoutMs: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const { receiver, onread } = staticReceiver();
    const socket =
      address.kind === 'unix'
        ? openSocket({ path: address.path, onread })
        : openSocket({ host: address.host, port: address.port, noDelay: true, onread });
    attachReceiver(socket, receiver);
    const fail = (why: string) => {
      clearTimeout(timer);
      socket.destroy();
      reject(
        new BallastError('PEER_CLOSED', `cannot connect to ${formatAddress(address)}: ${why}`),
      );
    };
    // Stays for the time between the connection and the session that takes the socket over.
    socket.on('error', (error) => fail(codeOf(error) ?? error.message));
    const timer = setTimeout(() => fail(`no answer in ${timeoutMs} ms`), timeoutMs);
    socket.once('connect', () => {
      clearTimeout(timer);
      resolve(socket);
    });
  });
}

/** Reads go into one buffer, again and again, instead of 64 KiB of new memory each. */
function staticReceiver() {
  const receiver = new Receiver();
  const onread = {
    buffer: new Uint8Array(READ_BUFFER_BYTES),
    callback: (count: number, buffer: Uint8Array) => receiver.take(buffer.subarray(0, count)),
  };
  return { receiver, onread };
}

/**
 * The same connection with a static buffer. Node offers that option to who connects only, so the
 * accepted socket's handle goes to a socket of our own; where there is no such handle, the accepted
 * socket itself will do.
 */
function withStaticBuffer(accepted: Socket): Socket {
  const { _handle: handle } = accepted as { _handle?: object | null };
  if (!handle) return accepted;
  const { receiver, onread } = staticReceiver();
  const options = { handle, onread, pauseOnCreate: true } as SocketConstructorOpts;
  const socket = new Socket(options);
  attachReceiver(socket, receiver);
  return socket;
}

class SocketListener implements Listener {
  readonly address: Address;
  readonly #server: Server;
  readonly #sockets: Socket[] = [];
  readonly #waiting: { resolve(socket: Socket): void; reject(error: BallastError): void }[] = [];
  #closed = false;

  constructor(server: Server, address: Address) {
    this.#server = server;
    this.address = address;
    server.on('connection', (socket) => this.#arrived(socket));
    // A failed accept (too many open files) loses that connection, not the listener.
    server.on('error', () => {});
  }

  accept(): Promise<Socket> {
    const socket = this.#sockets.shift();
    if (socket) return Promise.resolve(socket);
    if (this.#closed) return Promise.reject(this.#closedError());
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
    });
  }

  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#closedError());
    for (const socket of this.#sockets.splice(0)) socket.destroy();
    // Accepted sockets live on; the server removes its socket file and stops at once.
    this.#server.close();
    return Promise.resolve();
  }

  #arrived(accepted: Socket): void {
    const socket = withStaticBuffer(accepted);
    // Until a session takes the socket over, a reset must not end the process.
    socket.on('error', () => {});
    const waiting = this.#waiting.shift();
    if (waiting) {
      waiting.resolve(socket);
      return;
    }
    this.#sockets.push(socket);
    socket.once('close', () => {
      const index = this.#sockets.indexOf(socket);
      if (index >= 0) this.#sockets.splice(index, 1);
    });
  }

  #closedError(): BallastError {
    return new BallastError('PEER_CLOSED', `${formatAddress(this.address)}: no longer listening`);
  }
}

function bind(server: Server, address: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const bound = () => {
      server.off('error', reject);
      resolve();
    };
    if (address.kind === 'unix') server.listen({ path: address.path }, bound);
    else server.listen({ host: address.host, port: address.port }, bound);
  });
}

/** Removes a socket file that nobody listens on; false if it is anything else. */
async function removeStale(address: Address): Promise<boolean> {
  if (address.kind !== 'unix') return false;
  // Undefined when the other side has removed it meanwhile: then the next bind succeeds.
  const file = lstatSync(address.path, { throwIfNoEntry: false });
  if (file && !file.isSocket()) return false;
  try {
    (await connect(address, 1000)).destroy();
    return false;
  } catch (error) {
    if (!(error instanceof BallastError) || !/ECONNREFUSED|ENOENT/.test(error.message))
      return false;
    rmSync(address.path, { force: true });
    return true;
  }
}

function boundAddress(server: Server, address: Address): Address {
  const bound = server.address();
  if (address.kind === 'unix' || bound === null || typeof bound === 'string') return address;
  return { kind: 'tcp', host: address.host, port: bound.port };
}

function refused(address: Address, error: unknown): BallastError {
  const code = codeOf(error);
  if (code === 'EADDRINUSE') {
    return new BallastError('ADDRESS_IN_USE', `${formatAddress(address)}: address already in use`);
  }
  return new BallastError(
    'BAD_INPUT',
    `cannot listen on ${formatAddress(address)}: ${code ?? error}`,
  );
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
}

import type { Socket } from 'node:net';

/**
 * Received bytes on their way to a session. A connecting socket reads into one static buffer (twice
 * the throughput of 'data' events), which must be asked for before the session exists; an accepted
 * one has 'data' events. Both end here.
 */
export class Receiver {
  #sink: ((bytes: Uint8Array) => void) | null = null;
  #early: Uint8Array | null = null;

  /** The bytes are valid until this returns. False pauses the socket. */
  take(bytes: Uint8Array): boolean {
    if (this.#sink) {
      this.#sink(bytes);
      return true;
    }
    // At most one chunk comes before the session: returning false stops the reading.
    this.#early = bytes.slice();
    return false;
  }

  open(socket: Socket, sink: (bytes: Uint8Array) => void): void {
    this.#sink = sink;
    const early = this.#early;
    this.#early = null;
    // Not before the caller has finished setting up what the sink uses.
    process.nextTick(() => {
      if (early) sink(early);
      socket.resume();
    });
  }
}

const receivers = new WeakMap<Socket, Receiver>();

/** Registers the receiver that the `onread` of `socket` feeds. */
export function attachReceiver(socket: Socket, receiver: Receiver): void {
  receivers.set(socket, receiver);
}

/** Sends everything that `socket` receives, early bytes included, to `sink`. */
export function receive(socket: Socket, sink: (bytes: Uint8Array) => void): void {
  const receiver = receivers.get(socket);
  if (receiver) receiver.open(socket, sink);
  else {
    socket.on('data', (chunk: Buffer) => {
      // A plain Uint8Array: `slice` of what is decoded from it copies, where Buffer's does not.
      sink(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length));
    });
  }
}

/** The two ends of a connection in one process: what one writes the other has received at once. */
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';

/** As much of a socket as sessions use. */
export class PipeEnd extends EventEmitter {
  destroyed = false;
  readonly writableLength = 0;
  /** What was written here, for who is at the other end. */
  onBytes: (bytes: Uint8Array) => void = () => {};

  /** For the code that was written for sockets. */
  get socket(): Socket {
    return this as unknown as Socket;
  }

  write(bytes: Uint8Array): boolean {
    if (!this.destroyed) this.onBytes(bytes);
    return true;
  }

  /** Bytes arrive from the other end, as a socket hands them on. */
  arrive(bytes: Uint8Array): void {
    if (!this.destroyed)
      this.emit('data', Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
  }

  /** The other end is gone. */
  hangUp(): void {
    this.destroy();
  }

  end(): this {
    return this.destroy();
  }

  destroy(): this {
    if (this.destroyed) return this;
    this.destroyed = true;
    this.emit('close');
    return this;
  }

  resume(): this {
    return this;
  }

  pause(): this {
    return this;
  }

  cork(): void {}

  uncork(): void {}
}

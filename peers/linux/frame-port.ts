/**
 * Frames between the thread with the channel and the one with the processor. The processor's thread
 * can wait for a frame with its event loop running, or in the middle of an instruction, asleep.
 */
import { type MessagePort, receiveMessageOnPort, type Worker } from 'node:worker_threads';
import type { Message } from '../../protocol/index.ts';
import { BallastError, type BallastErrorCode } from '../../shared/index.ts';

/** Why the processor's thread is at its end: sent instead of an answer. */
export interface ThreadFailure {
  readonly code: string;
  readonly message: string;
}

/** Said by the processor's thread once, when the machine is ready; frames follow. */
export const READY = 'ready';

export interface FramePort {
  /** The next frame of the host. */
  receive(): Promise<Message[]>;
  /** The same without returning to the event loop. */
  receiveNow(): Message[];
  /** The answer to the frame that was received last. */
  reply(messages: readonly Message[]): void;
}

/** The processor's end; `arrivals` counts frames and is shared with the other end. */
export class ThreadFramePort implements FramePort {
  readonly #port: MessagePort;
  readonly #arrivals: Int32Array;
  readonly #early: Message[][] = [];
  #waiting: ((frame: Message[]) => void) | null = null;

  constructor(port: MessagePort, arrivals: Int32Array) {
    this.#port = port;
    this.#arrivals = arrivals;
    port.on('message', (frame: Message[]) => {
      const resolve = this.#waiting;
      this.#waiting = null;
      if (resolve) resolve(frame);
      else this.#early.push(frame);
    });
  }

  receive(): Promise<Message[]> {
    const early = this.#early.shift();
    if (early) return Promise.resolve(early);
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  receiveNow(): Message[] {
    for (;;) {
      const seen = Atomics.load(this.#arrivals, 0);
      const frame = this.#early.shift() ?? receiveMessageOnPort(this.#port)?.message;
      if (frame) return frame;
      Atomics.wait(this.#arrivals, 0, seen);
    }
  }

  reply(messages: readonly Message[]): void {
    this.#port.postMessage(messages, buffersOf(messages));
  }
}

/** The channel's end. */
export class ProcessorThread {
  readonly #port: Worker;
  readonly #arrivals: Int32Array;
  #waiting: { resolve(frame: Message[]): void; reject(error: BallastError): void } | null = null;

  constructor(port: Worker, arrivals: Int32Array) {
    this.#port = port;
    this.#arrivals = arrivals;
    port.on('message', (answer: Message[] | ThreadFailure) => {
      const waiting = this.#waiting;
      this.#waiting = null;
      if (Array.isArray(answer)) waiting?.resolve(answer);
      else waiting?.reject(new BallastError(answer.code as BallastErrorCode, answer.message));
    });
  }

  /** One at a time. The messages are the thread's from now on. */
  ask(messages: Message[]): Promise<Message[]> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#port.postMessage(messages, buffersOf(messages));
      Atomics.add(this.#arrivals, 0, 1);
      Atomics.notify(this.#arrivals, 0);
    });
  }
}

/** What need not be copied: each buffer is one field's own. */
function buffersOf(messages: readonly Message[]): ArrayBuffer[] {
  const buffers: ArrayBuffer[] = [];
  for (const message of messages) {
    for (const value of Object.values(message)) {
      if (value instanceof Uint8Array && value.byteLength === value.buffer.byteLength) {
        buffers.push(value.buffer as ArrayBuffer);
      }
    }
  }
  return buffers;
}

/**
 * The destination's end of the stream: takes pages into the memory that the guest will find, keeps
 * the state of devices, and says when it holds everything. Nothing of it is believed: frames outside
 * the machine, records that are missing and states out of place end the session.
 */
import {
  type Agreement,
  factsOf,
  type GuestFacts,
  type Hello,
  type Message,
  ramOf,
  type StreamHandler,
  toUint32,
} from '../../protocol/index.ts';
import { assert, BallastError, type Bitmap } from '../../shared/index.ts';
import { DestinationMemory } from './destination-memory.ts';
import type { DeviceState } from './stream.ts';

/** Devices whose state may travel: a machine has fewer. */
const STATES_MAX = 16;
/** Of all states together. */
const STATE_BYTES_MAX = 256 * 1024 * 1024;

/** What the guest must be like, and what its source must have in common with us. */
interface Expected {
  readonly ramPages: number;
  readonly plan?: Agreement;
}

export class Incoming implements StreamHandler {
  readonly #guestAddress: string;
  readonly #expected: Expected;
  #hello: Hello | null = null;
  #memory: DestinationMemory | null = null;
  #ram: Bitmap | null = null;
  readonly states: DeviceState[] = [];
  /** Dirty syncs of the source so far. */
  passes = 0;
  #stateBytes = 0;
  #isLoaded = false;
  #settleLoaded: () => void = () => {};
  /** Resolves when everything has arrived. */
  readonly loaded = new Promise<void>((resolve) => {
    this.#settleLoaded = resolve;
  });

  /** `guestAddress`: where the guest finds this host. */
  constructor(guestAddress: string, expected: Expected) {
    this.#guestAddress = guestAddress;
    this.#expected = expected;
  }

  get plan(): Agreement {
    return this.#expected.plan ?? [];
  }

  /** Everything has arrived. */
  get isLoaded(): boolean {
    return this.#isLoaded;
  }

  get memory(): DestinationMemory {
    assert(this.#memory !== null, 'a stream has begun');
    return this.#memory;
  }

  /** The guest, as its source describes it. */
  get hello(): Hello {
    assert(this.#hello !== null, 'a stream has begun');
    return this.#hello;
  }

  get facts(): GuestFacts {
    return factsOf(this.hello);
  }

  /** @throws BallastError HELLO_MISMATCH when the source's guest is not the expected one. */
  begin(hello: Hello): void {
    if (hello.ram_pages !== this.#expected.ramPages) {
      throw new BallastError(
        'HELLO_MISMATCH',
        `the source's guest has ${hello.ram_pages} page frames, expected ${this.#expected.ramPages} as in the scenario`,
      );
    }
    this.#hello = { ...hello, ram_segments: hello.ram_segments.slice() };
    this.#ram = ramOf(hello);
    this.#memory = new DestinationMemory(hello.ram_pages, hello.record_size);
  }

  /** One frame of the source. @throws BallastError MESSAGE_INVALID, MESSAGE_UNEXPECTED. */
  handle(messages: Message[]): Message[] {
    let pages = 0;
    for (const message of messages) {
      if (this.#isLoaded) throw unexpected(message, 'after the end of the stream');
      switch (message.name) {
        case 'pages':
          pages += this.#receive(message);
          break;
        case 'zeroPages': {
          const { ranges, pageCount } = this.#rangesOf(message.ranges);
          this.memory.receiveZero(ranges);
          pages += pageCount;
          break;
        }
        case 'syncMark':
          this.#mark(message.pass);
          break;
        case 'deviceState':
          this.#keepState(message);
          break;
        case 'streamEnd':
          this.#isLoaded = true;
          this.#settleLoaded();
          break;
        default:
          throw unexpected(message, 'in a stream');
      }
    }
    if (this.#isLoaded) return [{ name: 'loaded', guest_address: this.#guestAddress }];
    return [{ name: 'consumed', pages }];
  }

  #receive({ ranges: bytes, data }: Message<'pages'>): number {
    const { ranges, pageCount } = this.#rangesOf(bytes);
    const expectedBytes = pageCount * this.memory.recordSizeBytes;
    if (data.length !== expectedBytes) {
      throw new BallastError(
        'MESSAGE_INVALID',
        `pages: expected ${expectedBytes} bytes for ${pageCount} pages, found ${data.length}`,
      );
    }
    this.memory.receive(ranges, data);
    return pageCount;
  }

  /** Frames of RAM alone, and no more of them in one message than there are. */
  #rangesOf(bytes: Uint8Array): { ranges: Uint32Array; pageCount: number } {
    const ranges = toUint32(bytes);
    if (!ranges || ranges.length % 2 !== 0) {
      throw new BallastError('MESSAGE_INVALID', 'ranges: expected pairs of first frame and count');
    }
    let pageCount = 0;
    for (let i = 0; i < ranges.length; i += 2) {
      const first = ranges[i]!;
      const count = ranges[i + 1]!;
      pageCount += count;
      const isRam =
        first + count <= this.#ram!.bitCount && this.#ram!.countRange(first, count) === count;
      if (count > 0 && isRam && pageCount <= this.#ram!.bitCount) continue;
      throw new BallastError(
        'MESSAGE_INVALID',
        `ranges: expected frames that hold RAM, each once, found ${first}+${count}`,
      );
    }
    return { ranges, pageCount };
  }

  #mark(pass: number): void {
    if (pass !== this.passes + 1) {
      throw new BallastError(
        'MESSAGE_INVALID',
        `syncMark: expected pass ${this.passes + 1}, found ${pass}`,
      );
    }
    this.passes = pass;
  }

  #keepState({ device, version, state }: Message<'deviceState'>): void {
    this.#stateBytes += state.length;
    const isNew = this.states.every((other) => other.device !== device);
    if (!isNew || this.states.length === STATES_MAX || this.#stateBytes > STATE_BYTES_MAX) {
      throw new BallastError(
        'MESSAGE_INVALID',
        `deviceState: ${device}: expected each device once`,
      );
    }
    this.states.push({ device, version, state: state.slice() });
  }
}

function unexpected({ name }: Message, where: string): BallastError {
  return new BallastError('MESSAGE_UNEXPECTED', `${name}: not ${where}`);
}

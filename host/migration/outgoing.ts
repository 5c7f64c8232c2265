/**
 * The source's end of the stream: pages are gathered for as long as no time passes, then they go out
 * as one frame. No more than the credit is under way, so neither side grows.
 */
import {
  type Message,
  type MessageName,
  STREAM_CREDIT_BYTES,
  type StreamLink,
  u32Bytes,
} from '../../protocol/index.ts';
import { BallastError, PAGE_SIZE_BYTES, type Pfn } from '../../shared/index.ts';
import { rangesOf, TAG_RECORD_BYTES } from '../memory/records.ts';
import type { DeviceState, MigrationStream } from './stream.ts';

/** Of a frame, beside the records of its pages: about what their ranges take. */
const RANGE_BYTES = 8;

export class OutgoingStream implements MigrationStream {
  readonly link: StreamLink;
  readonly #recordSizeBytes: number;
  #pfns: Pfn[] = [];
  #tags: number[] = [];
  #zeroPfns: Pfn[] = [];
  #marks: Message[] = [];
  /** What was read of the source last, page by page; only of records that are whole pages. */
  readonly #read = new Map<Pfn, Uint8Array>();
  /** Frames that were not answered yet, oldest first. */
  readonly #underWay: { readonly bytes: number; readonly answer: Promise<Message[]> }[] = [];
  #underWayBytes = 0;
  #broken: unknown = null;

  constructor(link: StreamLink, recordSizeBytes: number) {
    this.link = link;
    this.#recordSizeBytes = recordSizeBytes;
  }

  /** Pages of the source were read: ranges as pairs of first frame and count, one record a page. */
  readonly onPages = (ranges: Uint32Array, data: Uint8Array): void => {
    this.#read.clear();
    let at = 0;
    for (let i = 0; i < ranges.length; i += 2) {
      for (let pfn = ranges[i]!; pfn < ranges[i]! + ranges[i + 1]!; pfn++) {
        this.#read.set(pfn, data.subarray(at, at + PAGE_SIZE_BYTES));
        at += PAGE_SIZE_BYTES;
      }
    }
  };

  page(pfn: Pfn, tag: number): void {
    if (tag === 0) {
      this.#zeroPfns.push(pfn);
      return;
    }
    this.#pfns.push(pfn);
    this.#tags.push(tag);
  }

  mark(pass: number): void {
    this.#marks.push({ name: 'syncMark', pass });
  }

  /**
   * What was gathered goes out; resolves when there is credit for more.
   * @throws BallastError when the destination has turned the stream away or is gone.
   */
  async flush(): Promise<void> {
    if (this.#broken !== null) throw this.#broken;
    const frame = this.#takeFrame();
    if (frame.length > 0) {
      const pages = this.#pfns.length;
      const bytes = pages * (this.#recordSizeBytes + RANGE_BYTES);
      this.#pfns = [];
      this.#tags = [];
      this.#zeroPfns = [];
      this.#marks = [];
      const answer = this.link.exchange(frame);
      // A broken stream is noticed at the next flush, not when the credit is used up.
      answer.catch((error: unknown) => {
        this.#broken ??= error;
      });
      this.#underWay.push({ bytes, answer });
      this.#underWayBytes += bytes;
    }
    while (this.#underWayBytes > STREAM_CREDIT_BYTES) await this.#takeAnswer();
  }

  /**
   * The device's state, and the end. Resolves with the address at which the guest finds the
   * destination, which holds everything then. @throws BallastError as `flush`.
   */
  async finish(states: readonly DeviceState[]): Promise<string> {
    await this.flush();
    while (this.#underWay.length > 0) await this.#takeAnswer();
    const messages: Message[] = states.map((state) => ({ name: 'deviceState', ...state }));
    const reply = await this.link.exchange([...messages, { name: 'streamEnd' }]);
    return expectOnly(reply, 'loaded').guest_address;
  }

  async #takeAnswer(): Promise<void> {
    const { bytes, answer } = this.#underWay.shift()!;
    this.#underWayBytes -= bytes;
    expectOnly(await answer, 'consumed');
  }

  #takeFrame(): Message[] {
    const frame = this.#marks;
    if (this.#zeroPfns.length > 0) {
      frame.push({ name: 'zeroPages', ranges: u32Bytes(rangesOf(this.#zeroPfns)) });
    }
    if (this.#pfns.length > 0) {
      const data =
        this.#recordSizeBytes === TAG_RECORD_BYTES
          ? u32Bytes(Uint32Array.from(this.#tags))
          : Buffer.concat(this.#pfns.map((pfn) => this.#read.get(pfn)!));
      frame.push({ name: 'pages', ranges: u32Bytes(rangesOf(this.#pfns)), data });
    }
    return frame;
  }
}

function expectOnly<N extends MessageName>(reply: readonly Message[], name: N): Message<N> {
  const [message] = reply;
  if (reply.length === 1 && message?.name === name) return message as Message<N>;
  throw new BallastError(
    'MESSAGE_UNEXPECTED',
    `the destination answered with ${message?.name ?? 'nothing'}, expected ${name}`,
  );
}

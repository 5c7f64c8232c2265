/**
 * The other end of a live migration: a machine in a process of its own, whose RAM is what was sent to
 * it and whose state is the source's when it stopped. From then on it is the guest.
 */
import { type GuestLink, type Hello, type Message, u32Bytes } from '../../protocol/index.ts';
import { BallastError, PAGE_SIZE_BYTES, type Pfn } from '../../shared/index.ts';
import { RecordReader, rangesOf } from '../memory/records.ts';

/** A piece of the machine's state. */
const STATE_PIECE_BYTES = 4 << 20;

interface Staged {
  readonly pfns: Pfn[];
  readonly pages: Uint8Array[];
  readonly zeroPfns: Pfn[];
}

export class LiveDestination {
  readonly link: GuestLink;
  readonly #records: RecordReader;
  /** What was read of the source last, page by page. */
  readonly #read = new Map<Pfn, Uint8Array>();
  #staged: Staged = { pfns: [], pages: [], zeroPfns: [] };
  /** The last write; at most one is under way while the next is gathered. */
  #writing: Promise<unknown> = Promise.resolve();

  /** @throws BallastError HELLO_MISMATCH when the machine is not like the source. */
  constructor(link: GuestLink, hello: Hello, ramPages: number, recordSizeBytes: number) {
    if (hello.ram_pages !== ramPages || hello.record_size !== recordSizeBytes) {
      throw new BallastError(
        'HELLO_MISMATCH',
        `the destination has ${hello.ram_pages} page frames with records of ${hello.record_size} bytes, ` +
          `expected ${ramPages} and ${recordSizeBytes} as at the source`,
      );
    }
    if (recordSizeBytes !== PAGE_SIZE_BYTES) {
      throw new BallastError(
        'BAD_INPUT',
        'only a guest whose records are whole pages can be moved',
      );
    }
    this.link = link;
    this.#records = new RecordReader(recordSizeBytes, async (message) => {
      const reply = (await link.exchange([message])).at(-1);
      if (reply?.name !== 'records') throw unexpected(reply, 'records');
      return reply;
    });
  }

  /** Pages of the source were read; those of the slice before are on their way. */
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

  /** A page goes out, of those that were read last. */
  sent(pfn: Pfn, tag: number): void {
    if (tag === 0) this.#staged.zeroPfns.push(pfn);
    else {
      this.#staged.pfns.push(pfn);
      this.#staged.pages.push(this.#read.get(pfn)!);
    }
  }

  /** What was sent is written; resolves when what was sent before it has arrived. */
  async flush(): Promise<void> {
    const { pfns, pages, zeroPfns } = this.#staged;
    this.#staged = { pfns: [], pages: [], zeroPfns: [] };
    const frame: Message[] = [];
    if (pfns.length > 0) {
      frame.push({ name: 'write', ranges: u32Bytes(rangesOf(pfns)), data: Buffer.concat(pages) });
    }
    // A zero page needs no content: it reads as zero where its backing was given up.
    if (zeroPfns.length > 0) frame.push({ name: 'discard', ranges: u32Bytes(rangesOf(zeroPfns)) });
    await this.#writing;
    if (frame.length > 0) this.#writing = this.link.exchange(frame);
  }

  /** Everything has arrived. */
  async drain(): Promise<void> {
    await this.flush();
    await this.#writing;
  }

  /** Tags of what it holds. */
  readRecords(ranges: Uint32Array): Promise<Uint32Array> {
    return this.#records.read(ranges);
  }

  /** The machine's state, from the source to here. @throws BallastError when it has none. */
  async takeState(source: (message: Message) => Promise<Message<'machineState'>>): Promise<void> {
    for (let offset = 0, total = 1; offset < total; ) {
      const piece = await source({ name: 'getMachineState', offset, length: STATE_PIECE_BYTES });
      total = piece.total_bytes;
      const { data } = piece;
      if (total === 0 || data.length === 0 || offset + data.length > total) {
        throw new BallastError('MESSAGE_INVALID', 'machineState: the source cannot be moved');
      }
      await this.link.exchange([{ name: 'setMachineState', offset, total_bytes: total, data }]);
      offset += data.length;
    }
  }
}

function unexpected(reply: Message | undefined, expected: string): BallastError {
  return new BallastError(
    'MESSAGE_UNEXPECTED',
    `the destination answered with ${reply?.name ?? 'nothing'}, expected ${expected}`,
  );
}

/**
 * The guest's end of a host's channel, in a fuzzer's hands: what it is told to send goes through the
 * real encoding and its checks, everything else is answered as an idle guest would. It also measures
 * what the host holds for it: all that waits for a guest travels in the next frame.
 */
import {
  ExitReason,
  encodeFrame,
  type GuestLink,
  MESSAGES,
  type Message,
} from '../protocol/index.ts';
import { decodeFrame } from '../protocol/ipc/frame.ts';
import { packFrame, positional, type Raw } from './raw.ts';

/** One frame of the guest instead of an honest answer; made from the host's frame. */
export type Answer = (frame: readonly Message[], honest: readonly Raw[]) => readonly Raw[];

/** Frames of one case: far more than any case needs. */
const FRAMES_PER_CASE_MAX = 20_000;

/** Lines of the trace that are kept. */
const NOTES_MAX = 200;

export class HostileGuest implements GuestLink {
  readonly closed = Promise.resolve(null);
  /** The last messages from the host, and from here: for the reproducer. */
  readonly trace: string[] = [];
  /** Most messages and bytes that the host had waiting for its guest. */
  outboxMessages = 0;
  outboxBytes = 0;
  /** Messages that came with the last frames, since `received` was emptied. */
  received: Message[] = [];
  /** Told to every exit: the guest has nothing to do until then. */
  idleUntilNs = 0;
  /** Instead of the honest answer to a question of the host; null: that one. */
  onQuestion: (message: Message) => readonly Raw[] | null = () => null;
  /** Posted with every exit. */
  onRun: () => readonly Raw[] = () => [];
  readonly #ramPages: number;
  readonly #answers: Answer[] = [];
  #frames = 0;

  constructor(ramPages: number) {
    this.#ramPages = ramPages;
  }

  /** A case begins: its budget of frames, and what it sends. */
  begin(): void {
    this.#frames = 0;
    this.#answers.length = 0;
    this.trace.length = 0;
  }

  /** The next frame of the host that runs the vCPUs gets this answer. */
  answerNext(answer: Answer): void {
    this.#answers.push(answer);
  }

  /** Messages that are posted ahead of the exit of the next run. */
  post(...messages: readonly Raw[]): void {
    this.answerNext((_frame, honest) => [...messages, ...honest]);
  }

  get pending(): number {
    return this.#answers.length;
  }

  async exchange(messages: readonly Message[]): Promise<Message[]> {
    if (++this.#frames > FRAMES_PER_CASE_MAX) throw new Error('the host asks for ever');
    const frame = encodeFrame(messages);
    this.outboxMessages = Math.max(this.outboxMessages, messages.length);
    this.outboxBytes = Math.max(this.outboxBytes, frame.length);
    for (const message of messages) if (message.name !== 'run') this.received.push(message);
    const honest = messages.flatMap((message) => this.onQuestion(message) ?? this.#honest(message));
    const runs = messages.some(({ name }) => name === 'run');
    const answer = runs ? this.#answers.shift() : undefined;
    const replies = answer
      ? answer(messages, honest)
      : runs
        ? [...this.onRun(), ...honest]
        : honest;
    if (answer || runs) this.#note(messages, replies);
    const reply = packFrame(replies);
    return decodeFrame(reply, 4, reply.length, 'guest', 'copy');
  }

  async close(): Promise<void> {}

  #honest(message: Message): Raw[][] {
    switch (message.name) {
      case 'run':
        return [exit(message.until_ns, this.idleUntilNs)];
      case 'getDirtyLog':
        return [[MESSAGES.dirtyLog.id, new Uint8Array(((this.#ramPages + 31) >>> 5) * 4)]];
      case 'getFreeSet':
        return [[MESSAGES.freeSet.id, new Uint8Array(((this.#ramPages + 31) >>> 5) * 4)]];
      case 'read':
        return [[MESSAGES.records.id, new Uint8Array(4 * pagesOf(message.ranges))]];
      case 'countFree':
        return [[MESSAGES.freeCounts.id, new Uint8Array(message.ranges.length / 2)]];
      case 'getReliance': {
        const all = new Uint8Array(((this.#ramPages + 31) >>> 5) * 4);
        return [[MESSAGES.reliance.id, all, new Uint8Array(0), 0, 0]];
      }
      case 'getErased':
        return [[MESSAGES.erased.id, new Uint8Array(0)]];
      case 'getStatistics':
        return [[MESSAGES.statistics.id, []]];
      case 'getHistory':
        return [[MESSAGES.history.id, []]];
      case 'verify':
        return [[MESSAGES.verified.id, []]];
      case 'getGuestDigest':
        return [[MESSAGES.guestDigest.id, '']];
      case 'getConsole':
        return [[MESSAGES.consoleOutput.id, 0, []]];
      default:
        return [];
    }
  }

  #note(frame: readonly Message[], replies: readonly Raw[]): void {
    if (this.trace.length > NOTES_MAX) this.trace.splice(0, NOTES_MAX / 2);
    this.trace.push(`host: ${frame.map(({ name }) => name).join(', ')}`);
    this.trace.push(`guest: ${replies.map(show).join(', ')}`);
  }
}

export function exit(atNs: number, idleUntilNs = 0, reason: number = ExitReason.UNTIL): Raw[] {
  return [MESSAGES.exit.id, atNs, reason, idleUntilNs];
}

/** Messages of ours as raw ones. */
export function raws(messages: readonly Message[]): Raw[][] {
  return messages.map(positional);
}

/** Pages of pairs of first frame and count. */
function pagesOf(ranges: Uint8Array): number {
  const view = new DataView(ranges.buffer, ranges.byteOffset, ranges.length);
  let pages = 0;
  for (let at = 4; at < ranges.length; at += 8) pages += view.getUint32(at, true);
  return pages;
}

const NAME_OF = new Map<Raw, string>(
  Object.entries(MESSAGES).map(([name, { id }]) => [id, name] as const),
);

/** A message as one reads it in a reproducer. */
export function show(raw: Raw): string {
  if (!Array.isArray(raw)) return showValue(raw);
  const [id, ...fields] = raw as readonly Raw[];
  return `${NAME_OF.get(id!) ?? showValue(id ?? null)}(${fields.map(showValue).join(' ')})`;
}

function showValue(value: Raw): string {
  if (value instanceof Uint8Array) {
    const hex = Buffer.from(value.subarray(0, 32)).toString('hex');
    return `<${value.length}: ${hex}${value.length > 32 ? '…' : ''}>`;
  }
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 40));
  if (Array.isArray(value)) return `[${value.slice(0, 8).map(showValue).join(' ')}]`;
  if (typeof value === 'object' && value !== null && 'token' in value) return 'token';
  return String(value);
}

import { BallastError, Bitmap, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { toUint32, u32Bytes } from '../bulk.ts';
import type { Sender } from '../message-shape.ts';
import type { Message } from '../messages.ts';
import { type Agreement, agreementDigest, mustAgree } from './agreement.ts';
import { layoutHash } from './validate.ts';

/**
 * The first message of each side. The host speaks first and says what it was built with; the guest
 * answers with the same and with what the machine is. Of two hosts the source speaks first, with
 * what its guest is, and the destination answers. Each refuses a peer of another build.
 */

const PROTOCOL_VERSION = 1;

export type Hello = Message<'hello'>;

/** What only the guest knows; a source tells its destination. */
export interface GuestFacts {
  /** Bytes of a page's content record: 4 for the emulated guest, 4096 for real contents. */
  readonly recordSizeBytes: number;
  /** Frame numbers are below this; more than there is RAM if there are holes. */
  readonly ramPages: number;
  /** Pairs of first frame and count, ascending. Default: no holes. */
  readonly ramSegments?: Uint32Array;
  readonly vcpus: number;
  /** What its host must have in common with it. Default: nothing is asked. */
  readonly plan?: Agreement;
}

/** 1 TiB: what a host accepts, since it allocates a few bits for each page that a guest claims. */
export const MAX_RAM_PAGES = 2 ** 28;
const MAX_VCPUS = 1024;
const MAX_RAM_SEGMENTS = 64;
const PEER: Readonly<Record<Sender, Sender>> = {
  host: 'guest',
  guest: 'host',
  source: 'destination',
  destination: 'source',
};
const RECORD_SIZES: readonly number[] = [4, PAGE_SIZE_BYTES];

const NO_MACHINE = { recordSizeBytes: 0, ramPages: 0, vcpus: 0 } as const;

export function hostHelloMessage(plan: Agreement = []): Hello {
  return helloMessage('host', { ...NO_MACHINE, plan });
}

export function guestHelloMessage(facts: GuestFacts): Hello {
  return helloMessage('guest', facts);
}

export function sourceHelloMessage(facts: GuestFacts): Hello {
  return helloMessage('source', facts);
}

export function destinationHelloMessage(plan: Agreement = []): Hello {
  return helloMessage('destination', { ...NO_MACHINE, plan });
}

/** What a guest's or a source's hello says of the machine. */
export function factsOf(hello: Hello): GuestFacts {
  return {
    recordSizeBytes: hello.record_size,
    ramPages: hello.ram_pages,
    ramSegments: toUint32(hello.ram_segments)!,
    vcpus: hello.vcpus,
    plan: hello.plan,
  };
}

/**
 * `plan`: what our side must have in common with `from`.
 * @throws BallastError HELLO_MISMATCH naming what differs, or MESSAGE_UNEXPECTED.
 */
export function checkHello(
  messages: readonly Message[],
  from: Sender,
  plan: Agreement = [],
): Hello {
  const [hello] = messages;
  if (messages.length !== 1 || hello?.name !== 'hello') {
    const found = messages.map(({ name }) => name).slice(0, 4);
    throw new BallastError(
      'MESSAGE_UNEXPECTED',
      `expected hello alone as the first frame of the ${from}, found ${found.join(', ') || 'nothing'}`,
    );
  }
  mustEqual('role', hello.role, from, from);
  mustEqual('protocol version', hello.version, PROTOCOL_VERSION, from);
  mustEqual('message layout', hello.layout, layoutHash(), from);
  mustEqual('page size', hello.page_size, PAGE_SIZE_BYTES, from);
  if (from === 'guest' || from === 'source') {
    mustBe('record size', hello.record_size, RECORD_SIZES.includes(hello.record_size), '4 or 4096');
    mustBe('RAM pages', hello.ram_pages, inRange(hello.ram_pages, MAX_RAM_PAGES), '1 … 2^28');
    const segments = toUint32(hello.ram_segments);
    const sound = segments !== null && areSegments(segments, hello.ram_pages);
    mustBe('RAM segments', segments?.join(' ') ?? '?', sound, 'ascending pairs below RAM pages');
    mustBe('vCPUs', hello.vcpus, inRange(hello.vcpus, MAX_VCPUS), `1 … ${MAX_VCPUS}`);
  }
  mustAgree(
    { role: from, agreement: hello.plan, digest: hello.plan_sha256 },
    { role: PEER[from], agreement: plan, digest: agreementDigest(plan) },
  );
  return hello;
}

/** The frames that hold RAM, of a guest's checked hello. */
export function ramOf(hello: Hello): Bitmap {
  const ram = new Bitmap(hello.ram_pages);
  const segments = toUint32(hello.ram_segments)!;
  for (let i = 0; i < segments.length; i += 2) ram.setRange(segments[i]!, segments[i + 1]!);
  return ram;
}

function areSegments(segments: Uint32Array, ramPages: number): boolean {
  if (segments.length === 0 || segments.length % 2 !== 0) return false;
  if (segments.length > 2 * MAX_RAM_SEGMENTS) return false;
  let end = 0;
  for (let i = 0; i < segments.length; i += 2) {
    if (segments[i]! < end || segments[i + 1] === 0) return false;
    end = segments[i]! + segments[i + 1]!;
  }
  return end <= ramPages;
}

function helloMessage(role: Sender, facts: GuestFacts): Hello {
  const plan = facts.plan ?? [];
  return {
    name: 'hello',
    version: PROTOCOL_VERSION,
    layout: layoutHash(),
    role,
    page_size: PAGE_SIZE_BYTES,
    record_size: facts.recordSizeBytes,
    ram_pages: facts.ramPages,
    ram_segments: u32Bytes(facts.ramSegments ?? Uint32Array.of(0, facts.ramPages)),
    vcpus: facts.vcpus,
    plan_sha256: agreementDigest(plan),
    plan: [...plan],
  };
}

function mustEqual(
  what: string,
  theirs: number | string,
  ours: number | string,
  from: string,
): void {
  if (theirs === ours) return;
  const found = typeof theirs === 'string' ? JSON.stringify(theirs.slice(0, 40)) : theirs;
  throw new BallastError(
    'HELLO_MISMATCH',
    `hello of the ${from}: ${what} is ${found}, here it is ${ours}`,
  );
}

function mustBe(what: string, value: number | string, holds: boolean, expected: string): void {
  if (holds) return;
  throw new BallastError(
    'HELLO_MISMATCH',
    `hello of the guest: expected ${what} in ${expected}, found ${String(value).slice(0, 40)}`,
  );
}

function inRange(value: number, max: number): boolean {
  return value >= 1 && value <= max;
}

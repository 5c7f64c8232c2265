import { BallastError, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { type Message, PROTOCOL_VERSION } from '../messages.ts';
import { layoutHash } from './validate.ts';

/**
 * The first message of each side. The host speaks first and says what it was built with; the guest
 * answers with the same and with what the machine is. Both refuse a peer of another build.
 */

export type Hello = Message<'hello'>;

/** What only the guest knows. */
export interface GuestFacts {
  /** Bytes of a page's content record: 4 for the emulated guest, 4096 for real contents. */
  readonly recordSizeBytes: number;
  readonly ramPages: number;
  readonly vcpus: number;
}

/** 1 TiB: what a host accepts, since it allocates a few bits for each page that a guest claims. */
export const MAX_RAM_PAGES = 2 ** 28;
const MAX_VCPUS = 1024;
const RECORD_SIZES: readonly number[] = [4, PAGE_SIZE_BYTES];

export function hostHelloMessage(): Hello {
  return helloMessage('host', { recordSizeBytes: 0, ramPages: 0, vcpus: 0 });
}

export function guestHelloMessage(facts: GuestFacts): Hello {
  return helloMessage('guest', facts);
}

/** Throws BallastError HELLO_MISMATCH naming what differs, or MESSAGE_UNEXPECTED. */
export function checkHello(messages: readonly Message[], from: 'host' | 'guest'): Hello {
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
  if (from === 'guest') {
    mustBe('record size', hello.record_size, RECORD_SIZES.includes(hello.record_size), '4 or 4096');
    mustBe('RAM pages', hello.ram_pages, inRange(hello.ram_pages, MAX_RAM_PAGES), '1 … 2^28');
    mustBe('vCPUs', hello.vcpus, inRange(hello.vcpus, MAX_VCPUS), `1 … ${MAX_VCPUS}`);
  }
  return hello;
}

function helloMessage(role: 'host' | 'guest', facts: GuestFacts): Hello {
  return {
    name: 'hello',
    version: PROTOCOL_VERSION,
    layout: layoutHash(),
    role,
    page_size: PAGE_SIZE_BYTES,
    record_size: facts.recordSizeBytes,
    ram_pages: facts.ramPages,
    vcpus: facts.vcpus,
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

function mustBe(what: string, value: number, holds: boolean, expected: string): void {
  if (holds) return;
  throw new BallastError(
    'HELLO_MISMATCH',
    `hello of the guest: expected ${what} in ${expected}, found ${value}`,
  );
}

function inRange(value: number, max: number): boolean {
  return value >= 1 && value <= max;
}

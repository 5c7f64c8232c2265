/** What migrates of a machine besides its RAM, as bytes. */
import type { Message } from '../../protocol/index.ts';
import { BallastError } from '../../shared/index.ts';
import type { OracleState } from './oracle.ts';
import type { VirtioPciState } from './virtio-pci.ts';

/** v86 needs about 2 MB. */
const STATE_BYTES_MAX = 64 << 20;

export interface MachineState {
  readonly reportedNs: number;
  readonly pci: VirtioPciState;
  readonly oracle: OracleState;
  /** Processor and devices, as v86 saves them. */
  readonly x86: Uint8Array;
}

/** u32 length of a JSON text, the text, then v86's bytes. */
export function encodeState({ x86, ...rest }: MachineState): Uint8Array {
  const text = Buffer.from(JSON.stringify(rest));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length);
  return new Uint8Array(Buffer.concat([length, text, x86]));
}

export function decodeState(bytes: Uint8Array): MachineState {
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  try {
    const textEnd = 4 + all.readUInt32LE(0);
    const rest = JSON.parse(all.toString('utf8', 4, textEnd)) as Omit<MachineState, 'x86'>;
    return { ...rest, x86: bytes.slice(textEnd) };
  } catch (error) {
    throw new BallastError('MESSAGE_INVALID', `a machine state: ${error}`);
  }
}

/** Gathers the pieces of a state. */
export class StateReceiver {
  readonly #bytes: Uint8Array;
  #received = 0;

  constructor(totalBytes: number) {
    if (totalBytes > STATE_BYTES_MAX) {
      throw new BallastError('MESSAGE_INVALID', `a machine state of ${totalBytes} bytes`);
    }
    this.#bytes = new Uint8Array(totalBytes);
  }

  /** All of it after the last piece, null before. */
  receive({ offset, total_bytes, data }: Message<'setMachineState'>): Uint8Array | null {
    const end = this.#received + data.length;
    if (total_bytes !== this.#bytes.length || offset !== this.#received || end > total_bytes) {
      throw new BallastError(
        'MESSAGE_INVALID',
        `setMachineState: expected the piece at ${this.#received} of ${this.#bytes.length} bytes`,
      );
    }
    this.#bytes.set(data, offset);
    this.#received = end;
    return end === this.#bytes.length ? this.#bytes : null;
  }
}

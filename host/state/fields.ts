/**
 * Reads the saved state of a device field by field. It comes from another process: a field that is
 * missing or makes no sense is one line that names it.
 */
import { BallastError } from '../../shared/index.ts';

/** What a state is made of; bytes are base64 text. */
export type StateValue =
  | number
  | string
  | boolean
  | null
  | readonly StateValue[]
  | { readonly [field: string]: StateValue };
export type State = { readonly [field: string]: StateValue };

export class StateFields {
  readonly #where: string;
  readonly #fields: ReadonlyMap<string, unknown>;

  /** `where`: what the fields are of, for messages. @throws BallastError MESSAGE_INVALID. */
  constructor(where: string, state: unknown) {
    this.#where = where;
    if (typeof state !== 'object' || state === null || Array.isArray(state)) {
      throw new BallastError('MESSAGE_INVALID', `${where}: expected an object with fields`);
    }
    this.#fields = new Map(Object.entries(state));
  }

  int(name: string, max: number, min = 0): number {
    const value = this.#fields.get(name);
    const isIn = typeof value === 'number' && Number.isSafeInteger(value);
    if (!isIn || value < min || value > max) throw this.bad(name, `an integer ${min} … ${max}`);
    return value;
  }

  intOrNull(name: string, max: number): number | null {
    return this.#fields.get(name) === null ? null : this.int(name, max);
  }

  numberOrNull(name: string): number | null {
    const value = this.#fields.get(name) ?? null;
    if (value !== null && !(typeof value === 'number' && value >= 0)) {
      throw this.bad(name, 'a number from 0 on, or null');
    }
    return value;
  }

  bool(name: string): boolean {
    const value = this.#fields.get(name);
    if (typeof value !== 'boolean') throw this.bad(name, 'true or false');
    return value;
  }

  text(name: string, lengthMax: number): string {
    const value = this.#fields.get(name);
    if (typeof value !== 'string' || value.length > lengthMax) {
      throw this.bad(name, `a text of at most ${lengthMax} characters`);
    }
    return value;
  }

  textOrNull(name: string, lengthMax: number): string | null {
    return this.#fields.get(name) === null ? null : this.text(name, lengthMax);
  }

  bytes(name: string, lengthMax: number): Uint8Array {
    const text = this.text(name, Math.ceil(lengthMax / 3) * 4);
    return new Uint8Array(Buffer.from(text, 'base64'));
  }

  /** Each of a list, as fields of its own or null. */
  list(name: string, countMax: number): (StateFields | null)[] {
    const value = this.#fields.get(name);
    if (!Array.isArray(value) || value.length > countMax) {
      throw this.bad(name, `a list of at most ${countMax}`);
    }
    return value.map((one: unknown, i) =>
      one === null ? null : new StateFields(`${this.#where}.${name}[${i}]`, one),
    );
  }

  /** A list in which nothing is left out. */
  items(name: string, countMax: number): StateFields[] {
    return this.list(name, countMax).map((one, i) => {
      if (one === null) throw this.bad(`${name}[${i}]`, 'an object with fields');
      return one;
    });
  }

  object(name: string): StateFields {
    return new StateFields(`${this.#where}.${name}`, this.#fields.get(name));
  }

  /** All fields, each a count. */
  counts(): Map<string, number> {
    return new Map([...this.#fields.keys()].map((name) => [name, this.int(name, 2 ** 53 - 1)]));
  }

  /** The error for a field that makes no sense, alone or in its place. */
  bad(name: string, expected: string): BallastError {
    return new BallastError('MESSAGE_INVALID', `${this.#where}.${name}: expected ${expected}`);
  }
}

export function bytesText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64');
}

/** `avail` messages in parts, so that any one of them can be wrong. */
import { f64Bytes, MESSAGES, u16Bytes, u32Bytes } from '../protocol/index.ts';
import type { Raw } from './raw.ts';

export interface Chain {
  readonly head: number;
  readonly atNs: number;
  readonly out?: Uint8Array;
  /** Guest physical address and length, bytes. */
  readonly in?: readonly (readonly [gpa: number, lengthBytes: number])[];
}

/** The fields of the message as lists; they need not agree. */
export interface AvailFields {
  queue: number;
  heads: number[];
  atNs: number[];
  outBytes: number[];
  out: Uint8Array;
  inCount: number[];
  inGpa: number[];
  inBytes: number[];
}

export function fieldsOf(queue: number, chains: readonly Chain[]): AvailFields {
  const outs = chains.map(({ out }) => out ?? new Uint8Array(0));
  const segments = chains.flatMap((chain) => chain.in ?? []);
  const out = new Uint8Array(outs.reduce((sum, bytes) => sum + bytes.length, 0));
  let at = 0;
  for (const bytes of outs) {
    out.set(bytes, at);
    at += bytes.length;
  }
  return {
    queue,
    heads: chains.map(({ head }) => head),
    atNs: chains.map(({ atNs }) => atNs),
    outBytes: outs.map(({ length }) => length),
    out,
    inCount: chains.map((chain) => chain.in?.length ?? 0),
    inGpa: segments.map(([gpa]) => gpa),
    inBytes: segments.map(([, lengthBytes]) => lengthBytes),
  };
}

export function availOf(fields: AvailFields): Raw[] {
  return [
    MESSAGES.avail.id,
    fields.queue,
    u16Bytes(Uint16Array.from(fields.heads)),
    f64Bytes(Float64Array.from(fields.atNs)),
    u32Bytes(Uint32Array.from(fields.outBytes)),
    fields.out,
    u16Bytes(Uint16Array.from(fields.inCount)),
    f64Bytes(Float64Array.from(fields.inGpa)),
    u32Bytes(Uint32Array.from(fields.inBytes)),
  ];
}

export function u32sOf(...values: readonly number[]): Uint8Array {
  return u32Bytes(Uint32Array.from(values));
}

/**
 * The migration group: the stream from a source host to a destination host. The source is the master:
 * each of its frames is answered by one frame of the destination, which says that it was consumed. A
 * source has no more than `STREAM_CREDIT_BYTES` under way that were not, so neither side grows.
 */
import type { Shape } from './message-shape.ts';

/** Bytes of the stream that may be under way: about three frames of a fast link's slice. */
export const STREAM_CREDIT_BYTES = 8 * 1024 * 1024;

export const MIGRATION_MESSAGES = {
  pages: {
    id: 70,
    group: 'migration',
    from: 'source',
    fields: { /** u32 pairs: first PFN, count. */ ranges: 'bin', data: 'bin' },
    doc: 'Posted. Pages with content: record_size bytes each, in the order of the ranges.',
  },
  zeroPages: {
    id: 71,
    group: 'migration',
    from: 'source',
    fields: { /** u32 pairs: first PFN, count. */ ranges: 'bin' },
    doc: 'Posted. Pages that are zero.',
  },
  syncMark: {
    id: 72,
    group: 'migration',
    from: 'source',
    fields: { pass: 'u32' },
    doc: 'Posted. A dirty sync: a page may come again from here on.',
  },
  deviceState: {
    id: 73,
    group: 'migration',
    from: 'source',
    fields: { device: 'str', version: 'u32', state: 'bin' },
    doc: 'Posted. State of one device, a JSON object that its version defines.',
  },
  streamEnd: {
    id: 74,
    group: 'migration',
    from: 'source',
    fields: {},
    doc: 'Everything was sent. Answered by loaded.',
  },
  consumed: {
    id: 75,
    group: 'migration',
    from: 'destination',
    fields: { pages: 'u32' },
    doc: 'The frame was taken in whole, with so many pages: the credit of its bytes is free again.',
  },
  loaded: {
    id: 76,
    group: 'migration',
    from: 'destination',
    fields: { /** Where the guest finds this host. */ guest_address: 'str' },
    doc: 'The destination holds everything and waits for the guest.',
  },
} as const satisfies Readonly<Record<string, Shape>>;

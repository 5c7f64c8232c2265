/**
 * The oracle group: ground truth for evaluation, which no real host has. No device or migration code
 * may send any of these.
 */
import type { Shape } from './message-shape.ts';

export const ORACLE_MESSAGES = {
  getFreeSet: { id: 50, group: 'oracle', from: 'host', fields: {}, doc: 'Answered by freeSet.' },
  freeSet: {
    id: 51,
    group: 'oracle',
    from: 'guest',
    fields: { bits: 'bin' },
    doc: 'One bit per page that nobody uses: buddy, per-CPU lists, blocks held for hinting.',
  },
  countFree: {
    id: 60,
    group: 'oracle',
    from: 'host',
    fields: { /** u32 pairs: first PFN, count. */ ranges: 'bin' },
    doc: 'Answered by freeCounts.',
  },
  freeCounts: {
    id: 61,
    group: 'oracle',
    from: 'guest',
    fields: { /** u32 per range. */ counts: 'bin' },
    doc: 'Pages of each range that nobody uses.',
  },
  getErased: { id: 62, group: 'oracle', from: 'host', fields: {}, doc: 'Answered by erased.' },
  erased: {
    id: 63,
    group: 'oracle',
    from: 'guest',
    fields: { /** u32 each, ascending. */ pfns: 'bin' },
    doc: 'Pages in use whose content a discard took and that were not written since.',
  },
  getReliance: { id: 66, group: 'oracle', from: 'host', fields: {}, doc: 'Answered by reliance.' },
  reliance: {
    id: 67,
    group: 'oracle',
    from: 'guest',
    fields: {
      /** One bit per page in use whose content somebody relies on. */
      contents: 'bin',
      /** One bit per free page that the next allocation takes to hold freed_tag; empty: none does. */
      freed: 'bin',
      /** The content record of such a page: 0 (init_on_free) or the poison. */
      freed_tag: 'u32',
      /** Pages in use that nobody has written since they were allocated without content. */
      undefined_pages: 'u32',
    },
    doc: 'Who relies on the content of a page, now.',
  },
  verify: {
    id: 52,
    group: 'oracle',
    from: 'host',
    fields: {},
    doc: 'Full audit of the guest; answered by verified.',
  },
  verified: {
    id: 53,
    group: 'oracle',
    from: 'guest',
    fields: { problems: 'lines' },
    doc: 'Empty: every page has exactly one owner and all counts agree.',
  },
  getStatistics: {
    id: 54,
    group: 'oracle',
    from: 'host',
    fields: {},
    doc: 'Answered by statistics.',
  },
  statistics: {
    id: 55,
    group: 'oracle',
    from: 'guest',
    fields: { counters: 'counters' },
    doc: 'mm, driver and hinting counters.',
  },
  getHistory: {
    id: 56,
    group: 'oracle',
    from: 'host',
    fields: { pfn: 'u32' },
    doc: 'Answered by history.',
  },
  history: {
    id: 57,
    group: 'oracle',
    from: 'guest',
    fields: { lines: 'lines' },
    doc: 'What the guest knows of one page: its last allocation, hints and writes.',
  },
  getGuestDigest: {
    id: 58,
    group: 'oracle',
    from: 'host',
    fields: {},
    doc: 'Answered by guestDigest.',
  },
  guestDigest: {
    id: 59,
    group: 'oracle',
    from: 'guest',
    fields: { sha256: 'str' },
    doc: 'Event log digest.',
  },
} as const satisfies Readonly<Record<string, Shape>>;

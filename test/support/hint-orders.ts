/**
 * Six orders of a write and a hint in the first round, as they were tried on QEMU 7.2, 10.0 and 11.1:
 * a guest of 2 GiB writes 300 pages at 1 GiB + 16 MiB (P) after the id was issued, and its driver
 * hints them, or others in the same GiB (Q). Verdict: how many of the 300 arrive as they were written.
 */
import type { DirtyLogPolicy } from '../../protocol/index.ts';

export const ORDER_PAGES = 300;
const [ALL, LOST] = [ORDER_PAGES, 0];

export type OrderStep = { readonly write: 'P' } | { readonly hint: 'P' | 'Q' };

export interface HintOrder {
  readonly name: string;
  readonly steps: readonly OrderStep[];
  /** Default: 18. */
  readonly clearBitmapShift?: number;
  /** Of the pages that were written after the id; of none that was, those that may read zero. */
  readonly correctPages: Readonly<Record<DirtyLogPolicy, number>>;
}

const SAFE = { tcg: ALL, 'kvm-bitmap': ALL, 'kvm-get-and-clear': ALL, 'kvm-ring': ALL } as const;
const UNSAFE = { ...SAFE, 'kvm-bitmap': LOST } as const;

export const HINT_ORDERS: readonly HintOrder[] = [
  { name: 'write, no hint', steps: [{ write: 'P' }], correctPages: SAFE },
  {
    name: 'write, then hint consumed',
    steps: [{ write: 'P' }, { hint: 'P' }],
    correctPages: UNSAFE,
  },
  {
    name: 'hint consumed, then write',
    steps: [{ hint: 'P' }, { write: 'P' }],
    correctPages: SAFE,
  },
  {
    name: 'chunk cleared by another hint first',
    steps: [{ hint: 'Q' }, { write: 'P' }, { hint: 'P' }],
    correctPages: SAFE,
  },
  {
    name: 'write, then hint; chunks of 64 pages',
    steps: [{ write: 'P' }, { hint: 'P' }],
    clearBitmapShift: 6,
    correctPages: UNSAFE,
  },
  // Nothing is written after the id, so the destination may have anything.
  { name: 'hint only', steps: [{ hint: 'P' }], correctPages: SAFE },
];

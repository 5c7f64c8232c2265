import type { Pfn } from '../../shared/index.ts';

/** Whether a frame holds this content; who finds that it does not may remember it. */
export type ContentReader = (pfn: Pfn, tag: number) => boolean;

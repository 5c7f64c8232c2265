/** Page, address and time units. The two that get mixed up, `Pfn` and `Gpa`, are branded. */

declare const brand: unique symbol;
/** Page frame number: guest physical address >> PAGE_SHIFT. */
export type Pfn = number & { readonly [brand]?: 'Pfn' };
/** Guest physical address in bytes; a number, because 2^53 covers every machine we model. */
export type Gpa = number & { readonly [brand]?: 'Gpa' };
/** Virtual time: integer nanoseconds since power-on. 2^53 ns are 104 days. */
export type Nanoseconds = number;

export const PAGE_SHIFT = 12;
export const PAGE_SIZE_BYTES = 1 << PAGE_SHIFT;
export const MIB = 1024 * 1024;
export const NS_PER_US = 1_000;
export const NS_PER_MS = 1_000_000;
export const NS_PER_S = 1_000_000_000;

export function pfnToGpa(pfn: Pfn): Gpa {
  return pfn * PAGE_SIZE_BYTES;
}

/** The frame that contains `gpa`. */
export function gpaToPfn(gpa: Gpa): Pfn {
  return Math.floor(gpa / PAGE_SIZE_BYTES);
}

/**
 * Allocation flags (include/linux/gfp_types.h of Linux 6.1, values included) as far as the
 * allocator honours them, and what follows from them: the migrate type and the highest zone.
 */

import { MigrateType } from './migratetype.ts';
import { ZoneType } from './zone-type.ts';

export const Gfp = {
  __GFP_DMA: 0x01,
  __GFP_HIGHMEM: 0x02,
  __GFP_DMA32: 0x04,
  __GFP_MOVABLE: 0x08,
  __GFP_RECLAIMABLE: 0x10,
  __GFP_HIGH: 0x20,
  __GFP_IO: 0x40,
  __GFP_FS: 0x80,
  __GFP_ZERO: 0x100,
  __GFP_ATOMIC: 0x200,
  __GFP_DIRECT_RECLAIM: 0x400,
  __GFP_KSWAPD_RECLAIM: 0x800,
  __GFP_RECLAIM: 0xc00,
  __GFP_WRITE: 0x1000,
  __GFP_NOWARN: 0x2000,
  __GFP_RETRY_MAYFAIL: 0x4000,
  __GFP_NOFAIL: 0x8000,
  __GFP_NORETRY: 0x1_0000,
  __GFP_MEMALLOC: 0x2_0000,
  __GFP_COMP: 0x4_0000,
  __GFP_NOMEMALLOC: 0x8_0000,
  __GFP_HARDWALL: 0x10_0000,
  __GFP_THISNODE: 0x20_0000,
  __GFP_ACCOUNT: 0x40_0000,
  /** HIGH | ATOMIC | KSWAPD_RECLAIM: may not sleep, may use the reserves. */
  GFP_ATOMIC: 0xa20,
  /** RECLAIM | IO | FS */
  GFP_KERNEL: 0xcc0,
  /** GFP_KERNEL | ACCOUNT */
  GFP_KERNEL_ACCOUNT: 0x40_0cc0,
  /** KSWAPD_RECLAIM */
  GFP_NOWAIT: 0x800,
  /** RECLAIM */
  GFP_NOIO: 0xc00,
  /** RECLAIM | IO */
  GFP_NOFS: 0xc40,
  /** GFP_KERNEL | HARDWALL */
  GFP_USER: 0x10_0cc0,
  GFP_DMA: 0x01,
  GFP_DMA32: 0x04,
  /** GFP_USER | HIGHMEM */
  GFP_HIGHUSER: 0x10_0cc2,
  /** GFP_HIGHUSER | MOVABLE */
  GFP_HIGHUSER_MOVABLE: 0x10_0cca,
  /** GFP_HIGHUSER_MOVABLE | COMP | NOMEMALLOC | NOWARN, without any reclaim. */
  GFP_TRANSHUGE_LIGHT: 0x1c_20ca,
} as const;

/** An OR of `Gfp` bits. */
export type GfpMask = number;

const names = new Map<string, number>(Object.entries(Gfp));

/**
 * The mask of a text as ftrace prints it, `GFP_KERNEL|__GFP_ZERO`. Names that the allocator does
 * not know change nothing that it models and count as 0; a hexadecimal remainder is taken as is.
 */
export function gfpFromText(text: string): GfpMask {
  let mask = 0;
  for (const word of text.split('|')) {
    mask |= names.get(word) ?? (/^0x[0-9a-f]+$/i.test(word) ? Number.parseInt(word, 16) : 0);
  }
  return mask;
}

/** gfp_migratetype: the two mobility bits are the type's number. */
export function migratetypeOf(gfp: GfpMask): MigrateType {
  if ((gfp & Gfp.__GFP_MOVABLE) !== 0) return MigrateType.MOVABLE;
  return (gfp & Gfp.__GFP_RECLAIMABLE) !== 0 ? MigrateType.RECLAIMABLE : MigrateType.UNMOVABLE;
}

/** gfp_zone: the highest zone that may serve the request; lower ones are fallbacks. */
export function highestZoneOf(gfp: GfpMask): ZoneType {
  if ((gfp & Gfp.__GFP_DMA) !== 0) return ZoneType.DMA;
  if ((gfp & Gfp.__GFP_DMA32) !== 0) return ZoneType.DMA32;
  // ZONE_MOVABLE serves only what is both movable and able to live in high memory.
  const movable = Gfp.__GFP_HIGHMEM | Gfp.__GFP_MOVABLE;
  return (gfp & movable) === movable ? ZoneType.MOVABLE : ZoneType.NORMAL;
}

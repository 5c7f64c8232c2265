/** Zones of a 64-bit x86 guest, lowest first, numbered as in Linux (enum zone_type). */
export const ZoneType = { DMA: 0, DMA32: 1, NORMAL: 2, MOVABLE: 3 } as const;
export type ZoneType = (typeof ZoneType)[keyof typeof ZoneType];

export const MAX_NR_ZONES = 4;
export const ZONE_NAMES = ['DMA', 'DMA32', 'Normal', 'Movable'] as const;

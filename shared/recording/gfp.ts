/**
 * What an allocation's `gfp_flags` say, parsed once per distinct text. The names are those that
 * the kernel's trace events print (include/trace/events/mmflags.h), composites unexpanded.
 */

/** Migrate types as the trace prints them (include/linux/mmzone.h). */
export const Migratetype = { UNMOVABLE: 0, MOVABLE: 1, RECLAIMABLE: 2 } as const;
export type Migratetype = (typeof Migratetype)[keyof typeof Migratetype];

/** One distinct `gfp_flags` text of a recording. */
export interface GfpClass {
  /** As the trace printed it. */
  readonly text: string;
  /** __GFP_ZERO: the caller asked for zeroed pages, whatever init_on_alloc says. */
  readonly zero: boolean;
  readonly movable: boolean;
  readonly reclaimable: boolean;
  readonly migratetype: Migratetype;
  /** The flags with which the balloon driver allocates the blocks it hints. */
  readonly hintDriver: boolean;
}

const MOVABLE_COMPOSITES = new Set([
  'GFP_HIGHUSER_MOVABLE',
  'GFP_TRANSHUGE',
  'GFP_TRANSHUGE_LIGHT',
]);

const HINT_DRIVER_FLAGS = ['__GFP_NOMEMALLOC', '__GFP_NORETRY', '__GFP_NOWARN'];

/** Never fails: a name it does not know only adds nothing. */
export function parseGfp(text: string): GfpClass {
  const flags = new Set(text.split('|').map((flag) => flag.trim()));
  const movable =
    flags.has('__GFP_MOVABLE') || [...flags].some((flag) => MOVABLE_COMPOSITES.has(flag));
  const reclaimable = flags.has('__GFP_RECLAIMABLE');
  return {
    text,
    zero: flags.has('__GFP_ZERO'),
    movable,
    reclaimable,
    // The kernel's gfp_migratetype(): the two flags are exclusive; movable is the lower bit.
    migratetype: movable
      ? Migratetype.MOVABLE
      : reclaimable
        ? Migratetype.RECLAIMABLE
        : Migratetype.UNMOVABLE,
    // Exactly these three: with a reclaim flag it would be an ordinary caller.
    hintDriver: flags.size === 3 && HINT_DRIVER_FLAGS.every((flag) => flags.has(flag)),
  };
}

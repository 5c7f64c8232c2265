import { z } from 'zod';
import { DIRTY_LOG_POLICIES, HINT_REMEDIES } from '../../protocol/dirty-log.ts';
import {
  AFTER_ISOLATION,
  AWAITED,
  COMPACT_MODES,
  MOVABLE_GENERATIONS,
  type MovableGenerationName,
  PAGE_USERS,
  STRATEGIES,
  type StrategyName,
} from '../../protocol/index.ts';

/**
 * Scenarios of the schedule explorer: a small machine and the threads that meet in it. Which of them
 * runs when is not in the file: that is what is explored.
 */

/** Beyond it a schedule is no longer short. */
const TIMES_MAX = 100;
const PAGES_MAX = 1024;
const THREADS_MAX = 24;
const ONE_IN_MAX = 1_000_000;
const FRAMES_MAX = 8192;
export const PAGEBLOCK_PAGES = 512;

const times = z.int().min(1).max(TIMES_MAX).default(1);
const pages = z.int().min(1).max(PAGES_MAX).default(4);
const cpu = z.int().min(0).max(7).default(0);
const of = z.enum(PAGE_USERS).default('any');
const oneIn = z.int().min(0).max(ONE_IN_MAX).default(0);

const threadKinds = {
  inflate: z.strictObject({ pages, times }),
  deflate: z.strictObject({ pages, times }),
  compact: z.strictObject({
    cpu,
    mode: z.enum(COMPACT_MODES).default('sync'),
    order: z.int().min(1).max(10).default(4),
    times,
  }),
  soft_offline: z.strictObject({ of, times }),
  isolate: z.strictObject({
    cpu,
    of,
    pages,
    // biome-ignore lint/suspicious/noThenProperty: the word of the scenario; nobody awaits it
    then: z.enum(AFTER_ISOLATION).default('either'),
    times,
  }),
  zspool: z.strictObject({ objects: z.int().min(1).max(PAGES_MAX).default(4), times }),
  mapped_driver: z.strictObject({ pages, times }),
  page_tables: z.strictObject({ pages: z.int().min(1).max(8).default(2), times }),
  process: z.strictObject({ pages, times }),
  churn: z.strictObject({
    cpu,
    pages,
    order: z.int().min(0).max(10).default(0),
    keep: z.boolean().default(false),
    awaits: z.enum(AWAITED).default('nothing'),
    times,
  }),
  hint: z.strictObject({
    strategy: z.enum(STRATEGIES as readonly [StrategyName, ...StrategyName[]]),
    budget: z.int().min(1).max(PAGES_MAX).default(1),
    min_order: z.int().min(0).max(10).default(0),
    rounds: z.int().min(0).max(TIMES_MAX).default(0),
  }),
  shrink: z.strictObject({ pages, times }),
  migrate: z.strictObject({
    dirty_log: z.enum(DIRTY_LOG_POLICIES).default('tcg'),
    hint_remedy: z.enum(HINT_REMEDIES).default('none'),
  }),
} as const;
export type ThreadName = keyof typeof threadKinds;
export const THREAD_NAMES = Object.keys(threadKinds) as ThreadName[];

type ThreadShape = { [K in ThreadName]: z.ZodOptional<(typeof threadKinds)[K]> };
const threadObject = z.strictObject(
  Object.fromEntries(
    Object.entries(threadKinds).map(([name, schema]) => [name, schema.optional()]),
  ) as ThreadShape,
);

/** A thread is one key with its options; a name alone takes the defaults. */
const thread = z.preprocess(
  (value) => (typeof value === 'string' ? { [value]: {} } : value),
  threadObject.refine((value) => Object.keys(value).length === 1, {
    message: `one thread: ${THREAD_NAMES.join(', ')}`,
  }),
);

const generationName = z.enum(
  MOVABLE_GENERATIONS as readonly [MovableGenerationName, ...MovableGenerationName[]],
);

export const exploreSchema = z.strictObject({
  name: z.string().min(1).max(80).optional(),
  description: z.string().optional(),
  seed: z.int().nonnegative().max(0xffff_ffff).default(1),
  machine: z
    .strictObject({
      frames: z
        .int()
        .min(PAGEBLOCK_PAGES)
        .max(FRAMES_MAX)
        .multipleOf(PAGEBLOCK_PAGES)
        .default(1024),
      managed: z.int().min(64).max(FRAMES_MAX).default(160),
      vcpus: z.int().min(1).max(8).default(2),
      page_poison: z.boolean().default(false),
    })
    .prefault({}),
  generation: generationName.default('list'),
  device: z.strictObject({ discard_hints: z.boolean().default(false) }).prefault({}),
  threads: z.array(thread).min(1).max(THREADS_MAX),
  faults: z
    .strictObject({ delayed_acks: oneIn, alloc_failures: oneIn, late_device: oneIn })
    .prefault({}),
});
export type ExploreFile = z.infer<typeof exploreSchema>;
export type ThreadFile = ExploreFile['threads'][number];

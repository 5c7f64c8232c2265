import { z } from 'zod';
import { MAX_ORDER } from '../../protocol/vmstat.ts';
import { PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { optionalEach } from '../input/optional-each.ts';
import { rateBytesPerS, sizeBytes } from '../input/units.ts';

/**
 * Steps that use the guest's memory. Each is one line on the guest's console, `pin process=vm
 * size=1024 by=vfio`, with sizes in pages; guest/machine/console.ts has the commands.
 */

const name = () =>
  z
    .string()
    .regex(/^[A-Za-z0-9_.-]{1,32}$/, 'a name of at most 32 letters, digits, "_", "." or "-"');
const sizePages = () => sizeBytes().transform((bytes) => bytes / PAGE_SIZE_BYTES);
const order = () => z.int().min(0).max(MAX_ORDER);
const times = () => z.int().min(1).max(1_000_000);
const cpu = () => z.int().min(0).max(63).optional();

/** An argument that is only a name: `exit: vm`. */
const named = () => name().transform((text) => ({ name: text }));

const process = z
  .strictObject({
    name: name(),
    anonymous: sizePages().optional(),
    shmem: sizePages().optional(),
  })
  .refine(({ anonymous, shmem }) => (anonymous === undefined) !== (shmem === undefined), {
    message: 'either anonymous or shmem beside the name',
  });

const compact = z
  .strictObject({
    how: z.enum(['manual', 'direct', 'kcompactd']).default('manual'),
    order: order().optional(),
    times: times().default(1),
    cpu: cpu(),
  })
  .refine(({ how, order }) => (how === 'manual') === (order === undefined), {
    message: 'an order with how: direct or kcompactd, and none with manual',
  });

const ratePagesPerS = () =>
  z
    .union([z.literal(0), rateBytesPerS()], 'a rate such as 50MiB/s, or 0')
    .transform((rate) => Math.round(rate / PAGE_SIZE_BYTES));
const perSecond = () => z.int().min(1).max(10_000);

/** Programs that use memory in the background, by what they do. */
const loadKinds = {
  churn: z.strictObject({ keep: sizePages(), chunk: sizePages(), rate: ratePagesPerS() }),
  rewrite: z.strictObject({ set: sizePages(), rate: ratePagesPerS() }),
  fork: z.strictObject({ per_second: perSecond(), private: sizePages() }),
  frag: z.strictObject({ size: sizePages(), run: z.int().min(1).max(1024) }),
  tmpfs: z.strictObject({ files: perSecond(), file: sizePages(), per_second: perSecond() }),
  pressure: z.strictObject({ leave: sizePages() }),
  idle: z.strictObject({}),
} as const;
type LoadKind = keyof typeof loadKinds;
const LOAD_KINDS = Object.keys(loadKinds) as LoadKind[];

const load = z
  .strictObject({ name: name(), cpu: cpu(), ...optionalEach(loadKinds) })
  .refine((given) => LOAD_KINDS.filter((kind) => given[kind] !== undefined).length === 1, {
    message: `a name and one of ${LOAD_KINDS.join(', ')}`,
  })
  .transform((given) => {
    const kind = LOAD_KINDS.find((one) => given[one] !== undefined)!;
    return { name: given.name, cpu: given.cpu, kind, ...given[kind] };
  });

/** Argument of each step, by its name. */
export const consoleSteps = {
  process,
  exit: named(),
  fork: z.strictObject({ process: name(), name: name() }),
  touch: z.strictObject({
    process: name(),
    size: sizePages().optional(),
    access: z.enum(['read', 'write']),
  }),
  read_file: z.strictObject({ name: name(), size: sizePages() }),
  write_file: z.strictObject({ name: name(), size: sizePages() }),
  sync_file: named(),
  drop_file: named(),
  pin: z.strictObject({
    process: name(),
    size: sizePages(),
    by: z.enum(['vfio', 'longterm', 'short']),
  }),
  unpin: named(),
  slab: z.strictObject({ name: name(), size: sizePages(), order: order().default(0) }),
  fragment: z.strictObject({
    name: name(),
    size: sizePages(),
    keep_every: z.int().min(2).max(512),
  }),
  free: named(),
  compact,
  allocate: z.strictObject({ order: order(), count: times().default(1) }),
  free_allocated: z.strictObject({}),
  soft_offline: z.strictObject({
    pages: z.int().min(1).max(65_536),
    of: z.enum(['free', 'process', 'balloon', 'zspool', 'mapped_driver', 'page_tables', 'slab']),
  }),
  contig: z.strictObject({ start: sizePages(), size: sizePages() }),
  zspool: z.strictObject({
    name: name(),
    objects: times(),
    size: z.int().min(32).max(PAGE_SIZE_BYTES),
    keep_every: z.int().min(1).max(4096).default(1),
  }),
  mapped_driver: z.strictObject({
    name: name(),
    size: sizePages(),
    dma: z.boolean().default(false),
  }),
  page_tables: z.strictObject({ name: name(), size: sizePages() }),
  driver: z.enum(['remove', 'probe']).transform((action) => ({ action })),
  start: load,
  finish: named(),
  freeze: z.strictObject({}),
  restore: z.strictObject({}),
} as const;

/** Steps that may stand without an argument. */
export const BARE_CONSOLE_STEPS: readonly string[] = [
  'compact',
  'free_allocated',
  'freeze',
  'restore',
];

/** `{order: 9, count: 4}` of `allocate` → `allocate order=9 count=4`. */
export function consoleLine(step: string, args: object): string {
  const words = Object.entries(args)
    .filter(([, value]) => isGiven(value))
    .map(([key, value]) => `${key}=${value}`);
  return [step, ...words].join(' ');
}

function isGiven(value: unknown): boolean {
  return value !== undefined;
}

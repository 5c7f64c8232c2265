/**
 * recording.json: what the guest was and what QEMU measured. Keys that nobody here knows are
 * allowed, for newer tools may add some; a missing or wrong one is named.
 */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { z } from 'zod';
import { BallastError } from '../../shared/index.ts';

/** The largest guest that MAX_FRAMES allows. */
const MAX_MEM_MIB = 60 * 1024;

const count = z.number().int().min(0);
const quantity = z.number().min(0);
const seconds = z.number().min(0).max(9e6);

const sampleSchema = z.object({
  ms: quantity,
  transferred: quantity,
  remaining: quantity,
  normal: count,
  duplicate: count,
  dirty_sync_count: count,
});

const measuredSchema = z.object({
  free_page_hint: z.boolean(),
  status: z.string(),
  total_ms: quantity,
  downtime_ms: quantity,
  setup_ms: quantity.optional(),
  transferred_bytes: count,
  normal_pages: count,
  duplicate_pages: count,
  dirty_sync_count: count,
  ram_total_bytes: count.optional(),
  series: z.array(sampleSchema).max(100_000).default([]),
});

const manifestSchema = z
  .object({
    name: z.string().min(1),
    mem_MiB: z.number().int().min(1).max(MAX_MEM_MIB),
    page_size: z.literal(4096),
    vcpus: z.number().int().min(1).max(256),
    kernel: z.string(),
    kernel_parameters: z.string(),
    init_on_alloc: z.boolean(),
    fresh_boot: z.boolean(),
    workload: z.string(),
    hypervisor: z.string(),
    recorded_with_free_page_hint: z.boolean(),
    bandwidth_bytes_per_s: z.number().positive(),
    downtime_limit_ms: quantity,
    // Only tells how long the import will take: the trace's own header is what counts.
    trace: z.object({ events: count.optional() }).optional(),
    migrate_at_s: seconds,
    migrated_at_s: seconds,
    in_place_dirty: z
      .object({ pages_per_second: quantity, set_pages: count })
      .nullish()
      .transform((value) => value ?? null),
    measured: z.array(measuredSchema).max(1000).default([]),
  })
  .refine(({ migrate_at_s, migrated_at_s }) => migrated_at_s >= migrate_at_s, {
    path: ['migrated_at_s'],
    message: 'expected a time not before migrate_at_s',
  });

export type Manifest = z.infer<typeof manifestSchema>;

/** Throws BallastError FILE_MISSING or RECORDING_MALFORMED: file, key, what was expected. */
export function readManifest(path: string): Manifest {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      throw new BallastError('FILE_MISSING', `${path}: expected this file, found none`);
    }
    throw new BallastError('BAD_INPUT', `${path}: cannot be read (${code})`);
  }
  return parseManifest(text, basename(path));
}

function parseManifest(text: string, file: string): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const found = error instanceof Error ? error.message.replace(/\s+/g, ' ') : 'other text';
    throw new BallastError('RECORDING_MALFORMED', `${file}: expected JSON, found ${found}`);
  }
  const result = manifestSchema.safeParse(value);
  if (result.success) return result.data;
  const [first, ...others] = result.error.issues;
  const more = others.length > 0 ? ` (and ${others.length} more)` : '';
  const key = first!.path.map(String).join('.') || 'the whole file';
  const found = JSON.stringify(at(value, first!.path)) ?? 'nothing';
  const expected = first!.message.replace(/^Invalid input: /, '').replace(/, received.*$/, '');
  throw new BallastError(
    'RECORDING_MALFORMED',
    `${file}: ${key}: ${expected}, found ${found.slice(0, 60)}${more}`,
  );
}

function at(value: unknown, path: readonly PropertyKey[]): unknown {
  let inner = value;
  for (const key of path) inner = (inner as Record<PropertyKey, unknown> | undefined)?.[key];
  return inner;
}

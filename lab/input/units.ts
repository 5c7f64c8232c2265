import { z } from 'zod';
import { NS_PER_MS, NS_PER_S, NS_PER_US, PAGE_SIZE_BYTES } from '../../shared/index.ts';

/**
 * Quantities as scenarios write them: sizes `512MiB`, durations `10ms`, rates `200MiB/s`. Each is a
 * text with a unit, because a bare number does not say which unit its author had in mind.
 */

const BYTES: Readonly<Record<string, number>> = {
  B: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
};
const DURATIONS: Readonly<Record<string, number>> = {
  ns: 1,
  us: NS_PER_US,
  ms: NS_PER_MS,
  s: NS_PER_S,
};
/** 1 TiB. Largest machine: PFNs must fit the 32-bit fields of the balloon queues. */
export const MAX_SIZE_BYTES = 1024 ** 4;
export const MAX_DURATION_NS = 3600 * NS_PER_S;

const SIZE_EXAMPLES = 'a size such as 4KiB, 512MiB or 1GiB';
const DURATION_EXAMPLES = 'a duration such as 500us, 10ms or 2s';
const RATE_EXAMPLES = 'a rate such as 200MiB/s';

/** Bytes of `text`, or what is wrong with it. */
export function parseSize(text: unknown): number | string {
  const bytes = quantity(text, BYTES);
  if (bytes === null) return SIZE_EXAMPLES;
  if (bytes <= 0) return 'a size above 0';
  if (bytes > MAX_SIZE_BYTES) return 'a size of at most 1TiB';
  if (bytes % PAGE_SIZE_BYTES !== 0) return 'a whole number of pages of 4KiB';
  return bytes;
}

/** Nanoseconds of `text`, or what is wrong with it. */
export function parseDuration(text: unknown): number | string {
  const ns = quantity(text, DURATIONS);
  if (ns === null) return DURATION_EXAMPLES;
  if (ns <= 0) return 'a duration above 0';
  if (ns > MAX_DURATION_NS) return 'a duration of at most 3600s';
  return Number.isInteger(ns) ? ns : 'a whole number of nanoseconds';
}

/** Bytes per second of `text`, or what is wrong with it. */
export function parseRate(text: unknown): number | string {
  const match = typeof text === 'string' ? /^(.*)\/s$/.exec(text.trim()) : null;
  const bytes = quantity(match?.[1], BYTES);
  if (bytes === null) return RATE_EXAMPLES;
  if (bytes < 1) return 'a rate above 0';
  return bytes <= MAX_SIZE_BYTES ? Math.round(bytes) : 'a rate of at most 1TiB/s';
}

function quantity(text: unknown, units: Readonly<Record<string, number>>): number | null {
  const match =
    typeof text === 'string' ? /^(-?\d+(?:\.\d+)?)\s*([A-Za-z]+)$/.exec(text.trim()) : null;
  const factor = Object.hasOwn(units, match?.[2] ?? '') ? units[match?.[2] ?? ''] : undefined;
  return match && factor !== undefined ? Number(match[1]) * factor : null;
}

function quantitySchema(parse: (text: unknown) => number | string) {
  return z.unknown().transform((value, context) => {
    const parsed = parse(value);
    if (typeof parsed === 'number') return parsed;
    context.addIssue({ code: 'custom', message: parsed });
    return z.NEVER;
  });
}

/** Each takes the text and gives the number; the message of an issue is what was expected. */
export const sizeBytes = () => quantitySchema(parseSize);
export const durationNs = () => quantitySchema(parseDuration);
export const rateBytesPerS = () => quantitySchema(parseRate);

/** `1073741824` → `1GiB`: the largest unit that leaves a short number. */
export function formatBytes(bytes: number): string {
  const units = ['TiB', 'GiB', 'MiB', 'KiB'] as const;
  for (const unit of units) {
    const size = BYTES[unit] ?? 1;
    if (bytes >= size) return `${Number((bytes / size).toFixed(1))}${unit}`;
  }
  return `${bytes}B`;
}

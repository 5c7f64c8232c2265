/** Checks the JSON of a compact file, key by key: it may come from anywhere. */
import { BallastError } from '../errors.ts';
import { MAX_EVENTS, MAX_FRAMES } from './format.ts';
import { type FileHeader, SECTION_NAMES } from './layout.ts';

const MAX_SIGNATURES = 1 << 16;
const MAX_GFP_CLASSES = 1 << 15;
const MAX_SECTION_BYTES = 1 << 30;

interface Rule {
  readonly expected: string;
  readonly test: (value: unknown) => boolean;
}

const text: Rule = { expected: 'a text', test: (value) => typeof value === 'string' };
const flag: Rule = { expected: 'true or false', test: (value) => typeof value === 'boolean' };
const quantity: Rule = {
  expected: 'a number, at least 0',
  test: (value) => typeof value === 'number' && Number.isFinite(value) && value >= 0,
};

function integer(from: number, to: number): Rule {
  return {
    expected: `an integer from ${from} to ${to}`,
    test: (value) =>
      Number.isInteger(value) && (value as number) >= from && (value as number) <= to,
  };
}

function nullable(rule: Rule): Rule {
  return {
    expected: `${rule.expected}, or null`,
    test: (value) => value === null || rule.test(value),
  };
}

function listOf(rule: Rule, maxLength: number): Rule {
  return {
    expected: `a list of at most ${maxLength}, each ${rule.expected}`,
    test: (value) => Array.isArray(value) && value.length <= maxLength && value.every(rule.test),
  };
}

function shape(rules: Readonly<Record<string, Rule>>): Rule {
  const keys = Object.keys(rules);
  return {
    expected: `an object with ${keys.join(', ')}`,
    test: (value) => isObject(value) && keys.every((key) => rules[key]!.test(value[key])),
  };
}

const time = integer(0, Number.MAX_SAFE_INTEGER);
const count = integer(0, Number.MAX_SAFE_INTEGER);

const sample = shape({
  ms: quantity,
  transferred: quantity,
  remaining: quantity,
  normal: quantity,
  duplicate: quantity,
  dirty_sync_count: quantity,
});

const measuredRun = shape({
  free_page_hint: flag,
  status: text,
  total_ms: quantity,
  downtime_ms: quantity,
  setup_ms: nullable(quantity),
  transferred_bytes: quantity,
  normal_pages: quantity,
  duplicate_pages: quantity,
  dirty_sync_count: quantity,
  ram_total_bytes: nullable(quantity),
  series: listOf(sample, 10_000),
});

const consistency = shape({
  allocs: count,
  frees: count,
  failedAllocs: count,
  freeBatched: count,
  batchedWithoutFree: count,
  otherEvents: count,
  lostEvents: count,
  malformedLines: count,
  timeReversals: count,
  onPcpPages: count,
  doubleAllocPages: count,
  doubleFreePages: count,
  endMismatchPages: count,
});

const HEADER_RULES: Readonly<Record<string, Rule>> = {
  name: text,
  memMiB: integer(1, 1 << 20),
  frameCount: integer(1, MAX_FRAMES),
  vcpus: integer(1, 256),
  kernel: text,
  kernelParameters: text,
  initOnAlloc: flag,
  freshBoot: flag,
  workload: text,
  hypervisor: text,
  recordedWithFreePageHint: flag,
  bandwidthBytesPerS: quantity,
  downtimeLimitMs: quantity,
  traceStartNs: time,
  traceEndNs: time,
  migrateAtNs: time,
  migratedAtNs: time,
  inPlaceDirty: nullable(shape({ pagesPerSecond: quantity, setPages: count })),
  measured: listOf(measuredRun, 1000),
  consistency,
};

const FILE_RULES: Readonly<Record<string, Rule>> = {
  gfpTexts: listOf(text, MAX_GFP_CLASSES),
  eventCount: integer(0, MAX_EVENTS),
  timeUnitNs: { expected: '1 or 1000', test: (value) => value === 1 || value === 1000 },
  signatures: listOf(listOf(integer(0, MAX_GFP_CLASSES), 5), MAX_SIGNATURES),
  sections: listOf(
    shape({
      name: {
        expected: `one of ${SECTION_NAMES.join(', ')}`,
        test: (value) => SECTION_NAMES.some((name) => name === value),
      },
      packedBytes: integer(0, MAX_SECTION_BYTES),
      rawBytes: integer(0, MAX_SECTION_BYTES),
    }),
    SECTION_NAMES.length,
  ),
};

/** Throws BallastError RECORDING_MALFORMED that names the key and what was expected. */
export function parseFileHeader(json: string, source: string): FileHeader {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw malformed(source, 'header', 'JSON', json);
  }
  if (!isObject(value)) throw malformed(source, 'header', 'an object', value);
  check(value, FILE_RULES, '', source);
  const { header } = value;
  if (!isObject(header)) throw malformed(source, 'header', 'an object', header);
  check(header, HEADER_RULES, 'header.', source);
  const file = value as unknown as FileHeader;
  file.signatures.forEach((signature, i) => {
    const [kind, order, gfpClass, cpu, migratetype] = signature;
    const known = gfpClass < file.gfpTexts.length || (kind === 1 && gfpClass === 0);
    const valid = signature.length === 5 && kind <= 1 && order <= 10 && migratetype < 16;
    if (!valid || !known || cpu >= file.header.vcpus) {
      throw malformed(source, `signatures[${i}]`, 'a kind, order, class, CPU, type', signature);
    }
  });
  return file;
}

function check(
  value: Readonly<Record<string, unknown>>,
  rules: Readonly<Record<string, Rule>>,
  prefix: string,
  source: string,
): void {
  for (const key of Object.keys(rules)) {
    const rule = rules[key]!;
    if (!rule.test(value[key])) throw malformed(source, prefix + key, rule.expected, value[key]);
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function malformed(source: string, key: string, expected: string, value: unknown): BallastError {
  const found = value === undefined ? 'nothing' : JSON.stringify(value).slice(0, 60);
  const message = `${source}: ${key}: expected ${expected}, found ${found}`;
  return new BallastError('RECORDING_MALFORMED', message);
}

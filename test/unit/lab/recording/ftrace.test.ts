import { describe, expect, test } from 'vitest';
import { readTrace, type TraceOptions } from '../../../../lab/recording/ftrace.ts';

const ALLOC =
  'mm_page_alloc: page=(____ptrval____) pfn=0x6174 order=1 migratetype=0 gfp_flags=GFP_KERNEL';
const FREE = 'mm_page_free: page=(____ptrval____) pfn=0x6174 order=0';
const PREFIX = '            init-1       [000] .....     2.467219: ';

function read(text: string, options: Partial<TraceOptions> = {}) {
  return readTrace([Buffer.from(text)], 'trace.txt', { frameCount: 0x40000, ...options });
}

async function refusal(text: string, options: Partial<TraceOptions> = {}) {
  return read(text, options).then(
    () => ({ code: 'accepted', message: '' }),
    (error: { code: string; message: string }) => error,
  );
}

describe('an event line', () => {
  test.each([
    ['as the kernel prints it', `${PREFIX}${ALLOC}`],
    ['without the flags column', `init-1 [000] 2.467219: ${ALLOC}`],
    ['with nanoseconds', `init-1 [000] ..... 2.467219000: ${ALLOC}`],
    ['with flags that tell something', `init-1 [000] d.h2. 2.467219: ${ALLOC}`],
    ['with older, four flags', `init-1 [000] dN.1 2.467219: ${ALLOC}`],
    ['with a tgid column', `init-1   (    1) [000] ..... 2.467219: ${ALLOC}`],
    ['with an unknown tgid', `init-1 (-------) [000] ..... 2.467219: ${ALLOC}`],
    ['of a task with spaces', `Web Content-77 [000] ..... 2.467219: ${ALLOC}`],
    ['of a task with dashes', `a-1-b--9 [000] ..... 2.467219: ${ALLOC}`],
    ['of a task with colons', `kworker/u2:1: x-9 [000] ..... 2.467219: ${ALLOC}`],
    ['of a task with a bracket', `[x] y [0]-9 [000] ..... 2.467219: ${ALLOC}`],
    ['of a task that looks like a CPU and a time', `a [1] 9.5: x-9 [000] ..... 2.467219: ${ALLOC}`],
    ['of the idle task', `<idle>-0 [000] ..... 2.467219: ${ALLOC}`],
    ['of an unknown task', `<...>-12345 [000] ..... 2.467219: ${ALLOC}`],
    ['as trace-cmd prints it', `init-1 [000] 2.467219: ${ALLOC.replace(': ', ':        ')}`],
    ['with a decimal pfn', `${PREFIX}${ALLOC.replace('0x6174', '24948')}`],
    [
      'with fields in another order',
      `${PREFIX}mm_page_alloc: gfp_flags=GFP_KERNEL migratetype=0 order=1 pfn=0x6174 page=ffffea00`,
    ],
    ['with a carriage return', `${PREFIX}${ALLOC}\r`],
    ['with a page address', `${PREFIX}${ALLOC.replace('(____ptrval____)', '0xffffea0000185d00')}`],
  ])('%s is an allocation', async (_, line) => {
    const { events, gfpTexts, allocs } = await read(`${line}\n`);
    expect(allocs).toBe(1);
    expect(events.pfn[0]).toBe(0x6174);
    expect(events.order[0]).toBe(1);
    expect(events.atNs[0]).toBe(2_467_219_000);
    expect(gfpTexts).toEqual(['GFP_KERNEL']);
  });

  test.each([
    ['page=0000000000000000 pfn=0x0'],
    ['page=(null) pfn=0x0'],
    ['page=(nil) pfn=0'],
    ['page=0x0 pfn=18446744073709551615'],
    ['page=00000000 pfn=0xffffffffffffffff'],
  ])('%s is a failed allocation, counted and left out', async (fields) => {
    const line = `mm_page_alloc: ${fields} order=10 migratetype=0 gfp_flags=GFP_KERNEL`;
    const trace = await read(`${PREFIX}${line}\n`);
    expect(trace.failedAllocs).toBe(1);
    expect(trace.events.count).toBe(0);
  });

  test('of another kind is counted and left out', async () => {
    const trace = await read(
      `${PREFIX}sched_switch: prev_comm=a\n${PREFIX}mm_page_alloc_zone_locked: page=1 pfn=0x1\n`,
    );
    expect(trace.otherEvents).toBe(2);
    expect(trace.events.count).toBe(0);
  });

  test('that is a mark is kept with its text, time and line', async () => {
    const { marks } = await read(`# a comment\n${PREFIX}tracing_mark_write: mark migrate\n`);
    expect(marks).toEqual([{ atNs: 2_467_219_000, text: 'mark migrate', line: 2 }]);
  });

  test.each([
    ['a pfn that is no number', ALLOC.replace('0x6174', '0x61z4'), 'mm_page_alloc: … pfn=0x'],
    ['a bare hexadecimal pfn', ALLOC.replace('0x6174', '61a4'), 'mm_page_alloc: … pfn=0x'],
    ['no order', ALLOC.replace(' order=1', ''), 'mm_page_alloc: … pfn=0x'],
    ['an order beyond 10', ALLOC.replace('order=1', 'order=11'), 'order='],
    ['no flags', ALLOC.replace(/ gfp_flags.*/, ''), 'gfp_flags='],
    ['half a free', 'mm_page_free: page=(____ptrval____) pfn=0x61', 'mm_page_free: … pfn=0x'],
    ['a free of no page', 'mm_page_free: page=(null) pfn=0x0 order=0', 'mm_page_free'],
    ['a pfn beyond the guest', ALLOC.replace('0x6174', '0x3ffff'), 'pfn at most 0x3fffe'],
    ['a block off its alignment', ALLOC.replace('0x6174', '0x6175'), 'aligned to 2 pages'],
    [
      'a batched free without pfn',
      'mm_page_free_batched: page=1 order=0',
      'mm_page_free_batched: … pfn',
    ],
  ])('with %s is refused by its number', async (_, event, expected) => {
    const { code, message } = await refusal(`# one\n${PREFIX}${FREE}\n${PREFIX}${event}\n`);
    expect(code).toBe('RECORDING_MALFORMED');
    expect(message).toContain('trace.txt:3: expected "');
    expect(message).toContain(expected);
    expect(message).not.toContain('\n');
  });
});

describe('a trace', () => {
  test.each([
    ['a sentence', 'once upon a time'],
    ['a line cut before its event', PREFIX.trimEnd()],
    ['a time without a fraction', `init-1 [000] ..... 12: ${FREE}`],
    ['a line without CPU', `init-1 2.0: ${FREE}`],
    ['control characters', '\u001b[2Jx'],
  ])('with %s is refused', async (_, line) => {
    const { code, message } = await refusal(`${PREFIX}${FREE}\n${line}\n`);
    expect(code).toBe('RECORDING_MALFORMED');
    expect(message).toMatch(/^trace\.txt:2: expected "[^"]+", found "[\x20-\x7e]*"$/);
  });

  test('with many malformed lines tells the first, keeps ten and counts all', async () => {
    const text = `${PREFIX}${FREE}\n${'nonsense\n'.repeat(25)}`;
    expect((await refusal(text)).message).toMatch(/^trace\.txt:2: .* \(and 24 more such lines\)$/);
    const trace = await read(text, { tolerateMalformed: true });
    expect(trace.malformed.map(({ line }) => line)).toEqual([2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(trace.malformedCount).toBe(25);
    expect(trace.frees).toBe(1);
  });

  test.each([
    ['CPU:0 [LOST 123 EVENTS]', 123],
    ['CPU:3 [LOST EVENTS]', 1],
    ['CPU:0 [7 EVENTS DROPPED]', 7],
    ['# entries-in-buffer/entries-written: 1/100   #P:1', 99],
  ])('with lost events (%s) is refused unless asked for', async (line, lost) => {
    const text = `${line}\n${PREFIX}${FREE}\n`;
    const { code, message } = await refusal(text);
    expect(code).toBe('RECORDING_LOST_EVENTS');
    expect(message).toMatch(/^trace\.txt:1: expected a trace without lost events, found \d+ lost/);
    const trace = await read(text, { allowLostEvents: true });
    expect(trace.lostEvents).toBe(lost);
    expect(trace.frees).toBe(1);
  });

  test('that ends before the entries that its header tells is refused', async () => {
    const text = `# entries-in-buffer/entries-written: 3/3   #P:1\n${PREFIX}${FREE}\n`;
    const { code, message } = await refusal(text);
    expect(code).toBe('RECORDING_MALFORMED');
    expect(message).toBe(
      'trace.txt:2: expected "3 entries, as the header says", found "the end of the file after 1"',
    );
  });

  test('is read the same however it comes in pieces, and without a last newline', async () => {
    const text = `# x\n${PREFIX}${ALLOC}\n${PREFIX}${FREE}\n${PREFIX}${ALLOC}`;
    const bytes = Buffer.from(text);
    for (const size of [1, 7, 100]) {
      const pieces: Uint8Array[] = [];
      for (let i = 0; i < bytes.length; i += size) pieces.push(bytes.subarray(i, i + size));
      const trace = await readTrace(pieces, 'trace.txt', { frameCount: 0x40000 });
      expect([trace.lines, trace.allocs, trace.frees]).toEqual([4, 2, 1]);
    }
  });

  test('without line ends is refused before it fills memory', async () => {
    const { message } = await refusal('x'.repeat(1 << 17));
    expect(message).toContain('a line without end');
  });

  test('takes a batched free as a check of the free before it', async () => {
    const batched = 'mm_page_free_batched: page=(____ptrval____) pfn=0x6174 order=0';
    const text = [FREE, batched, ALLOC, batched].map((event) => `${PREFIX}${event}\n`).join('');
    const trace = await read(text);
    expect(trace.events.count).toBe(2);
    expect([trace.freeBatched, trace.batchedWithoutFree]).toEqual([2, 1]);
  });

  test('whose clock steps back is held at the later time', async () => {
    const text = `a-1 [000] ..... 2.5: ${FREE}\na-1 [001] ..... 2.4: ${FREE}\n`;
    const trace = await read(text);
    expect([...trace.events.atNs.subarray(0, 2)]).toEqual([2.5e9, 2.5e9]);
    expect(trace.timeReversals).toBe(1);
    expect(trace.maxCpu).toBe(1);
  });
});

/** An inspection for a person: a few tables that fit a terminal of 100 columns. */
import Table from 'cli-table3';
import { MIB, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { Inspection } from './inspect.ts';

const SHOWN_CLASSES = 8;
const GFP_CHARS = 58;
const BORDERLESS = {
  ...{ top: '', 'top-mid': '', 'top-left': '', 'top-right': '' },
  ...{ bottom: '', 'bottom-mid': '', 'bottom-left': '', 'bottom-right': '' },
  ...{ left: '', 'left-mid': '', mid: '', 'mid-mid': '', right: '', 'right-mid': '' },
  middle: '  ',
};

/** Without colours, so that it can be piped; ends without a newline. */
export function renderInspection(inspection: Inspection): string {
  return [
    renderSummary(inspection),
    'Free memory by order of the largest aligned free block, MiB',
    renderFree(inspection),
    'Allocations by gfp_flags',
    renderClasses(inspection),
    'Around the migration',
    renderPhases(inspection),
    ...(inspection.measured.length > 0 ? ['Measured', renderMeasured(inspection)] : []),
  ].join('\n');
}

function renderSummary({ header, events, pages, pageblocks }: Inspection): string {
  const { consistency } = header;
  const yes = (value: boolean) => (value ? 'on' : 'off');
  const dirty = header.inPlaceDirty;
  const oddities = [
    [consistency.lostEvents, 'events lost'],
    [consistency.malformedLines, 'malformed lines left out'],
    [consistency.failedAllocs, 'failed allocations'],
    [consistency.doubleAllocPages, 'pages allocated twice'],
    [consistency.doubleFreePages, 'pages freed twice'],
    [consistency.batchedWithoutFree, 'batched frees without a free'],
    [consistency.timeReversals, 'times going backwards'],
    [consistency.endMismatchPages, 'pages whose end state differs from kpageflags.end'],
  ] as const;
  const told = oddities.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  const rows: [string, string][] = [
    ['recording', `${header.name}: ${header.workload}`],
    ['guest', `${header.memMiB} MiB, ${header.vcpus} vCPU, ${header.kernel}`],
    ['kernel', `${header.kernelParameters || '-'}; init_on_alloc ${yes(header.initOnAlloc)}`],
    ['hypervisor', header.hypervisor],
    [
      'link',
      `${(header.bandwidthBytesPerS / MIB).toFixed(0)} MiB/s, downtime limit ` +
        `${header.downtimeLimitMs} ms`,
    ],
    ['hinting while recorded', yes(header.recordedWithFreePageHint)],
    ['events', `${events.count}: ${events.allocs} allocations, ${events.frees} frees`],
    [
      'pages at start',
      `${pages.frames}: ${pages.freeAtStart} free, ${pages.onPcpAtStart} on per-CPU lists, ` +
        `${pages.reserved} reserved`,
    ],
    [
      'pages at migration',
      `${pages.freeAtMigrate} free, ${pages.zeroAtMigrate} zero, ` +
        `${pages.zeroFreeAtMigrate} both; ${pages.neverTouched} never touched`,
    ],
    [
      'pageblocks (guess)',
      `${pageblocks.movable} movable, ${pageblocks.unmovable} unmovable, ` +
        `${pageblocks.reclaimable} reclaimable`,
    ],
    [
      'rewritten in place',
      dirty ? `${dirty.pagesPerSecond} pages/s of ${dirty.setPages}` : 'nothing told',
    ],
    ['oddities', told.join(', ') || 'none'],
  ];
  const width = Math.max(...rows.map(([key]) => key.length));
  return `${rows.map(([key, value]) => `${key.padEnd(width)}  ${value}`).join('\n')}\n`;
}

function renderFree({ freeByOrder }: Inspection): string {
  const orders = freeByOrder[0]?.pagesByOrder.map((_, order) => String(order)) ?? [];
  const head = ['at s', ...orders, 'free', ''];
  const table = makeTable(head, [head.length - 1]);
  for (const { atMs, mark, freePages, pagesByOrder } of freeByOrder) {
    const cells = [...pagesByOrder, freePages].map(toMiB);
    table.push([(atMs / 1000).toFixed(2), ...cells, mark ?? '']);
  }
  return `${table.toString()}\n`;
}

function renderClasses({ classes }: Inspection): string {
  const table = makeTable(['allocs', 'MiB', 'gfp_flags'], [2]);
  for (const { allocs, pages, gfpFlags, hintDriver } of classes.slice(0, SHOWN_CLASSES)) {
    const text = gfpFlags.length > GFP_CHARS ? `${gfpFlags.slice(0, GFP_CHARS - 1)}…` : gfpFlags;
    table.push([allocs, toMiB(pages), hintDriver ? `${text} (hints)` : text]);
  }
  const more = classes.length - SHOWN_CLASSES;
  if (more > 0) table.push(['', '', `and ${more} more`]);
  return `${table.toString()}\n`;
}

function renderPhases({ phases }: Inspection): string {
  const table = makeTable(['phase', 'seconds', 'allocs', 'frees', 'allocs/s'], [0]);
  for (const { phase, seconds, allocs, frees, allocsPerSecond } of phases) {
    const rate = allocsPerSecond === null ? '-' : allocsPerSecond.toFixed(0);
    table.push([phase, seconds.toFixed(2), allocs, frees, rate]);
  }
  return `${table.toString()}\n`;
}

function renderMeasured({ measured }: Inspection): string {
  const head = ['hints', 'total ms', 'downtime ms', 'MiB', 'normal', 'duplicate', 'syncs'];
  const table = makeTable(head, [0]);
  for (const run of measured) {
    table.push([
      run.free_page_hint ? 'yes' : 'no',
      run.total_ms,
      run.downtime_ms,
      (run.transferred_bytes / MIB).toFixed(0),
      run.normal_pages,
      run.duplicate_pages,
      run.dirty_sync_count,
    ]);
  }
  return table.toString();
}

/** Columns of numbers, aligned to the right; those of `textColumns` hold text. */
function makeTable(head: string[], textColumns: readonly number[] = []) {
  return new Table({
    head,
    colAligns: head.map((_, i) => (textColumns.includes(i) ? 'left' : 'right')),
    style: { head: [], border: [], compact: true, 'padding-left': 0, 'padding-right': 0 },
    chars: BORDERLESS,
  });
}

function toMiB(pages: number): string {
  const mib = (pages * PAGE_SIZE_BYTES) / MIB;
  return mib === 0 ? '.' : mib < 10 ? mib.toFixed(1) : mib.toFixed(0);
}

/** What all parts of compaction share: the kernel they run in, and what is kept between runs. */
import type { PinCheck } from '../../protocol/control.ts';
import type { Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { Zone } from '../mm/index.ts';
import type { PageMigration } from '../page-migration/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import { CompactControl, type CompactRequest, ISOLATED_CAPACITY } from './compact-control.ts';
import { type IsPinned, pinCheckOf } from './pin-check.ts';
import { scoreMarks } from './suitability.ts';
import { CompactZoneState, SkipBits } from './zone-state.ts';

const DEFAULT_PROACTIVENESS = 20;

export interface CompactionOptions {
  readonly pinCheck: PinCheck;
  /** vm.compaction_proactiveness; default 20. */
  readonly compactionProactiveness?: number;
  /** vm.compact_unevictable_allowed; default true. */
  readonly unevictableAllowed?: boolean;
}

export class CompactContext {
  readonly kernel: Kernel;
  readonly folios: Folios;
  readonly migration: PageMigration;
  readonly unevictableAllowed: boolean;
  readonly isPinned: IsPinned;
  /** Fragmentation scores between which proactive compaction works. */
  readonly marks: { readonly low: number; readonly high: number };
  readonly skip: SkipBits;
  readonly #states: readonly CompactZoneState[];

  constructor(
    kernel: Kernel,
    folios: Folios,
    migration: PageMigration,
    options: CompactionOptions,
  ) {
    this.kernel = kernel;
    this.folios = folios;
    this.migration = migration;
    this.unevictableAllowed = options.unevictableAllowed ?? true;
    this.isPinned = pinCheckOf(options.pinCheck, folios);
    this.marks = scoreMarks(options.compactionProactiveness ?? DEFAULT_PROACTIVENESS);
    this.skip = new SkipBits(kernel.mm);
    this.#states = kernel.mm.zones.map((zone) => new CompactZoneState(zone));
  }

  stateOf(zone: Zone): CompactZoneState {
    return this.#states[zone.index]!;
  }

  /** `end` it when the run is over. */
  begin(request: CompactRequest): CompactControl {
    const { kernel, migration } = this;
    return new CompactControl(request, kernel.mm, migration.newSet(ISOLATED_CAPACITY));
  }

  end(cc: CompactControl): void {
    this.migration.recycle(cc.migratePages);
  }

  /** isolation_suitable: whether a pageblock is to be visited at all. */
  isolationSuitable(cc: CompactControl, block: Pfn): boolean {
    return cc.ignoreSkipHint || !this.skip.get(block);
  }

  /** Lets the time pass that the scanners have used since the last time. */
  *pay(cc: CompactControl): Kthread {
    const ns = cc.owedNs;
    if (ns === 0) return;
    cc.owedNs = 0;
    yield { kind: 'cpu', ns };
  }
}

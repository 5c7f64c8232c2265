/**
 * The migration thread between a guest and a device that come in at each of its requests, in one
 * process and without promises: every seed is another interleaving.
 */

import { describe, expect, test } from 'vitest';
import { DirtyLog } from '../../../../guest/machine/dirty-log.ts';
import { Precopy } from '../../../../host/migration/precopy.ts';
import type { MigrationStream } from '../../../../host/migration/stream.ts';
import type {
  MigrationMachine,
  MigrationReply,
  MigrationRequest,
} from '../../../../host/migration/thread.ts';
import type { Message, MigrateParams } from '../../../../protocol/index.ts';
import { DEFAULT_DIRTY_LOG } from '../../../../protocol/index.ts';
import {
  Bitmap,
  DEFAULT_COSTS,
  MIB,
  NO_PLANTS,
  type Plants,
  Prng,
} from '../../../../shared/index.ts';

const RAM_PAGES = 1024;
/** What the guest works on: one half used at the start, three chunks of the log. */
const BUSY = { first: 448, count: 128 } as const;
const NO_WATCHER = { hinted: () => {}, progress: () => {} };
const PARAMS: MigrateParams = {
  bandwidthBytesPerS: 10 * MIB,
  downtimeLimitMs: 20,
  ...DEFAULT_DIRTY_LOG,
  clearBitmapShift: 6,
};

/** Frames that are used or free, a driver that hints free ones, and a device that is behind. */
class PlayedMachine implements MigrationMachine {
  now = 0;
  running = true;
  readonly options;
  readonly log = { add: () => {} };
  readonly tags = new Uint32Array(RAM_PAGES);
  readonly used = new Bitmap(RAM_PAGES);
  readonly seen = new Set<string>();
  readonly precopy: Precopy;
  readonly #prng: Prng;
  readonly #dirtyLog = new DirtyLog(RAM_PAGES);
  readonly #plants: Plants;
  readonly #canHint: boolean;
  #cmdId = 1;
  #publishedId = 0;
  #queue: { pfn: number; cmdId: number }[] = [];
  #lastTag = 0;
  readonly #destinationTags = new Uint32Array(RAM_PAGES);

  constructor(seed: number, params: Partial<MigrateParams>, plants = NO_PLANTS, canHint = true) {
    const ram = new Bitmap(RAM_PAGES);
    ram.setAll();
    this.options = { ramPages: RAM_PAGES, ram, costs: DEFAULT_COSTS };
    this.#prng = new Prng(seed);
    this.#plants = plants;
    this.#canHint = canHint;
    for (let pfn = 0; pfn < RAM_PAGES / 2; pfn++) this.write(pfn);
    this.used.setRange(0, RAM_PAGES / 2);
    const stream: MigrationStream = {
      page: (pfn, tag) => {
        this.#destinationTags[pfn] = tag;
      },
      mark: () => {},
    };
    this.precopy = new Precopy(this, { ...PARAMS, ...params }, stream, NO_WATCHER, {
      plants,
    });
  }

  get device() {
    const machine = this;
    return {
      canHint: machine.#canHint,
      get hintCmdId() {
        return machine.#cmdId;
      },
      hintStart: () => {
        machine.#publishedId = ++machine.#cmdId;
        return true;
      },
      hintStop: () => {
        machine.#publishedId = 0;
      },
      hintDone: () => {
        machine.#publishedId = 0;
      },
    };
  }

  throttle(): void {}

  emit(): void {}

  post(message: Message): void {
    if (message.name === 'dirtyLogEnable') {
      const { enabled, initially_set, ring_entries } = message;
      const mode = { initiallySet: initially_set, ringEntries: ring_entries };
      this.#dirtyLog.enable(enabled, mode);
    } else if (message.name === 'clearDirtyLog') {
      this.#dirtyLog.clear(message.first_pfn, message.bits);
    }
  }

  /** Runs a migration to its end. */
  migrate(): string {
    const thread = this.precopy.run();
    for (let step = thread.next(); ; ) {
      if (step.done) return step.value.status;
      this.seen.add(step.value.kind === 'preempt' ? step.value.at : step.value.kind);
      if (this.running) this.others(step.value);
      step = thread.next(this.#answer(step.value));
    }
  }

  lostPages(): number[] {
    const tags = this.#destinationTags;
    return Array.from(tags.keys()).filter((pfn) => {
      return this.used.get(pfn) && tags[pfn] !== this.tags[pfn];
    });
  }

  #answer(request: MigrationRequest): MigrationReply {
    switch (request.kind) {
      case 'advanceTo':
        this.now = Math.max(this.now, request.atNs);
        return undefined;
      case 'dirtyLog': {
        return this.#dirtyLog.take(request.clear);
      }
      case 'records': {
        const [pfns, { ranges }]: [number[], { ranges: Uint32Array }] = [[], request];
        for (let i = 0; i < ranges.length; i += 2) {
          for (let pfn = ranges[i]!; pfn < ranges[i]! + ranges[i + 1]!; pfn++) pfns.push(pfn);
        }
        return Uint32Array.from(pfns, (pfn) => this.tags[pfn]!);
      }
      default:
        return undefined;
    }
  }

  /** At a request. The guest allocates, writes, frees and hints; the device takes hints, in order. */
  others(_request: MigrationRequest): void {
    for (let left = this.#prng.below(40); left > 0; left--) {
      // What was just hinted is reused soon.
      const pfn = this.#queue.at(-1 - this.#prng.below(8))?.pfn ?? this.#busyPage();
      const what = this.#prng.below(8);
      if (what < 3) {
        this.used.set(pfn);
        this.write(pfn);
      } else if (what < 5) this.used.clear(pfn);
      else if (what < 7) {
        this.#hint(this.#busyPage());
      } else this.#takeHint();
    }
  }

  write(pfn: number): void {
    this.tags[pfn] = ++this.#lastTag;
    this.#dirtyLog.mark(pfn);
  }

  #busyPage(): number {
    return BUSY.first + this.#prng.below(BUSY.count);
  }

  #hint(pfn: number): void {
    if (!this.used.get(pfn)) this.#queue.push({ pfn, cmdId: this.#publishedId });
  }

  #takeHint(): void {
    const hint = this.#queue.shift();
    if (!hint || hint.cmdId === 0) return;
    if (hint.cmdId !== this.#publishedId && !this.#plants.lateHintAccepted) return;
    const { pfn, cmdId } = hint;
    this.precopy.applyHint(pfn, 1, { cmdId, queuedAtNs: 0 });
  }
}

/** A page is dirty at the first sync, free in the first round, and hinted before the scan gets there. */
class OneHint extends PlayedMachine {
  static readonly PFN = 1000;

  override others(request: MigrationRequest): void {
    const pfn = OneHint.PFN;
    if (request.kind === 'preempt' && request.at === 'hints stopped') this.write(pfn);
    if (request.kind !== 'passStarted' || request.cmdId === null) return;
    this.precopy.applyHint(pfn, 1, { cmdId: request.cmdId, queuedAtNs: 0 });
  }
}

/** Each log under which no hint can undo a write. */
const SAFE_LOGS = [
  ['tcg', 'none'],
  ['kvm-get-and-clear', 'none'],
  ['kvm-ring', 'none'],
  ['kvm-bitmap', 'clear-at-id'],
  ['kvm-bitmap', 'cleared-chunks-only'],
] as const;
const SEEDS = Array.from({ length: 100 }, (_, i) => i + 1);

/** Over all seeds: pages lost, pages that hints kept out, and the requests that were seen. */
function explore(params: Partial<MigrateParams>, plants?: Partial<Plants>, canHint = true) {
  const seen = new Set<string>();
  let [lost, skipped] = [0, 0];
  for (const seed of SEEDS) {
    const machine = new PlayedMachine(seed, params, { ...NO_PLANTS, ...plants }, canHint);
    expect(machine.migrate()).toBe('completed');
    lost += machine.lostPages().length;
    skipped += machine.precopy.ledger.everSkipped.count();
    expect(machine.precopy.bitmap.dirtyPages).toBe(0);
    for (const request of machine.seen) seen.add(request);
  }
  return { lost, skipped, seen };
}

describe('a migration thread that others come in between at each request', () => {
  test.each(SAFE_LOGS)('loses nothing: %s with remedy %s', (dirtyLog, hintRemedy) => {
    const { lost, skipped, seen } = explore({ dirtyLog, hintRemedy });
    expect(lost).toBe(0);
    // What the first sync finds is all ones: that remedy takes no hint before the second.
    expect(skipped).toBeGreaterThan(hintRemedy === 'cleared-chunks-only' ? 0 : 1000);
    expect([...seen].sort()).toEqual([
      'advanceTo',
      'dirtyLog',
      'hints stopped',
      'log cleared',
      'log read',
      'passStarted',
      'records',
      'records read',
    ]);
  });

  test.each([
    ['a log that a hint clears, as QEMU with KVM', { dirtyLog: 'kvm-bitmap' }, {}],
    ['the log cleared at the hint, planted', {}, { dirtyLogClearedAtHint: true }],
    ['late hints', {}, { lateHintAccepted: true }],
  ] as const)('loses pages with %s', (_what, params, plants) => {
    expect(explore(params, plants).lost).toBeGreaterThan(0);
  });

  test.each([
    ['tcg', 'none'],
    ['kvm-bitmap', 'none'],
    ['kvm-bitmap', 'clear-at-id'],
  ] as const)(
    'does not send a hinted page again that the sync had found dirty: %s, %s',
    (dirtyLog, hintRemedy) => {
      const machine = new OneHint(1, { dirtyLog, hintRemedy });
      const { precopy } = machine;
      expect([machine.migrate(), precopy.ledger.resentPages]).toEqual(['completed', 0]);
      expect(precopy.ledger.skipped.get(OneHint.PFN)).toBe(true);
    },
  );

  test.each([['kvm-bitmap', 'none'], ...SAFE_LOGS] as const)(
    'loses nothing when hinting was not negotiated: %s, %s',
    (dirtyLog, hintRemedy) => {
      const { lost, skipped } = explore({ dirtyLog, hintRemedy }, {}, false);
      expect([lost, skipped]).toEqual([0, 0]);
    },
  );
});

test('a request that fails ends the thread, and the dirty log with it', () => {
  const machine = new PlayedMachine(1, {});
  const posted: string[] = [];
  machine.post = (message) => {
    posted.push(message.name === 'dirtyLogEnable' ? `${message.enabled}` : message.name);
  };
  const thread = machine.precopy.run();
  thread.next();
  expect(() => thread.throw(new Error('the guest is gone'))).toThrow('the guest is gone');
  expect(posted).toEqual(['true', 'false']);
});

import type { PlantName } from '../shared/index.ts';
import type { MovableGenerationName, StrategyName } from './control.ts';
import type { DirtyLogParams } from './dirty-log.ts';

/**
 * What the laboratory and a worker of the schedule explorer say to each other: plain data over
 * Node's IPC pipe. A schedule is a pure function of (scenario, plant, seed).
 */

/** Whose pages a thread takes. */
export const PAGE_USERS = [
  'balloon',
  'zspool',
  'process',
  'mapped_driver',
  'page_tables',
  'any',
] as const;
export type PageUser = (typeof PAGE_USERS)[number];

export const COMPACT_MODES = ['async', 'sync_light', 'sync'] as const;
export const AFTER_ISOLATION = ['migrate', 'putback', 'either'] as const;

export const AWAITED = ['nothing', 'hint', 'round'] as const;

/** One thread of a scenario; `times`: how often it does what it does. */
export type ExploreThread =
  /** The monitor raises or lowers the balloon's target. */
  | { readonly kind: 'inflate' | 'deflate'; readonly pages: number; readonly times: number }
  | {
      readonly kind: 'compact';
      readonly cpu: number;
      /** `sync`: the whole zone, by hand; the others for a block of `order`. */
      readonly mode: (typeof COMPACT_MODES)[number];
      readonly order: number;
      readonly times: number;
    }
  | { readonly kind: 'soft_offline'; readonly of: PageUser; readonly times: number }
  /** Isolates movable pages, then migrates them or puts them back. */
  | {
      readonly kind: 'isolate';
      readonly cpu: number;
      readonly of: PageUser;
      readonly pages: number;
      readonly then: (typeof AFTER_ISOLATION)[number];
      readonly times: number;
    }
  /** A user of a compressed memory pool: allocates, writes, reads and frees objects. */
  | { readonly kind: 'zspool'; readonly objects: number; readonly times: number }
  /** User space maps a driver's pages and stores to them; the device reads some; the file is closed. */
  | { readonly kind: 'mapped_driver'; readonly pages: number; readonly times: number }
  /** Address spaces with so many leaf page tables come and go. */
  | { readonly kind: 'page_tables'; readonly pages: number; readonly times: number }
  /** Anonymous or shared memory: page faults, a short pin, exit. */
  | { readonly kind: 'process'; readonly pages: number; readonly times: number }
  /** A kernel user: allocates blocks, writes them, looks whether they keep what was written, frees. */
  | {
      readonly kind: 'churn';
      readonly cpu: number;
      readonly pages: number;
      readonly order: number;
      /** What it allocates last it keeps until all threads are done. */
      readonly keep: boolean;
      /** Each time it first waits for another hint, or for one of another round. */
      readonly awaits: (typeof AWAITED)[number];
      readonly times: number;
    }
  /** The host asks for rounds of hinting, without a migration. */
  | { readonly kind: 'hint'; readonly times: number }
  /** Reclaim takes held blocks back from the hinting strategy. */
  | { readonly kind: 'shrink'; readonly pages: number; readonly times: number }
  | ({ readonly kind: 'migrate' } & Pick<DirtyLogParams, 'dirtyLog' | 'hintRemedy'>);

/** Probabilities are one in so many; 0: never. */
export interface ExploreFaults {
  /** The acknowledgement of a buffer takes many steps. */
  readonly delayedAcks: number;
  readonly allocFailures: number;
  /** The device looks at its queue many steps after the notification. */
  readonly lateDevice: number;
}

export interface ExploreScenario {
  readonly name: string;
  /** Mixed into the seed of each schedule. */
  readonly seed: number;
  /** `frames`: frame numbers are below this; `managed`: the frames that hold RAM. */
  readonly machine: {
    readonly frames: number;
    readonly managed: number;
    readonly vcpus: number;
    /** Freed pages are filled with the poison, and the next allocation relies on it. */
    readonly pagePoison: boolean;
  };
  readonly generation: MovableGenerationName;
  readonly strategy: StrategyName;
  readonly iterate: { readonly budgetNodes: number; readonly minOrder: number };
  /** The device discards what is hinted. */
  readonly discardHints: boolean;
  readonly threads: readonly ExploreThread[];
  readonly faults: ExploreFaults;
}

/** What a worker is told. Seeds `first` … `first + count − 1` are explored until one fails. */
export type ExploreRequest =
  | {
      readonly kind: 'explore';
      readonly scenario: ExploreScenario;
      readonly plant: PlantName | null;
      readonly first: number;
      readonly count: number;
    }
  | {
      readonly kind: 'reduce';
      readonly scenario: ExploreScenario;
      readonly plant: PlantName | null;
      readonly seed: number;
      /** Wall clock. */
      readonly limitMs: number;
    };

/** One step of a schedule, as it is printed. */
export interface ExploreStep {
  readonly number: number;
  readonly actor: string;
  /** What it did, one thing each. */
  readonly notes: readonly string[];
  /** Where it stands now: what it asked for. */
  readonly at: string;
}

export interface ExploreViolation {
  readonly seed: number;
  /** Name of what must hold. */
  readonly invariant: string;
  readonly message: string;
}

export type ExploreReply =
  | {
      readonly kind: 'explored';
      readonly schedules: number;
      readonly steps: number;
      readonly violation: ExploreViolation | null;
    }
  | {
      readonly kind: 'reduced';
      readonly violation: ExploreViolation;
      readonly policy: string;
      /** Steps and context switches as found, and as they are in `trace`. */
      readonly found: { readonly steps: number; readonly switches: number };
      readonly reduced: { readonly steps: number; readonly switches: number };
      /** Threads of the scenario that the trace does without. */
      readonly without: readonly string[];
      readonly trace: readonly ExploreStep[];
    };

/** Whose dirty log a migration reads, what it does about hints, and which hypervisor has it so. */

/**
 * `tcg`: QEMU's own log, cleared when it is read. `kvm-bitmap`: KVM with manual protect, initially all
 * ones, cleared by chunks before their first page is sent and by a hint. `kvm-get-and-clear`: KVM
 * without manual protect. `kvm-ring`: KVM's dirty ring, reaped when it is read and whenever it is full.
 */
export const DIRTY_LOG_POLICIES = ['tcg', 'kvm-bitmap', 'kvm-get-and-clear', 'kvm-ring'] as const;
export type DirtyLogPolicy = (typeof DIRTY_LOG_POLICIES)[number];

/**
 * What is done against a hint that undoes a write (`kvm-bitmap` alone needs it). `clear-at-id`: the
 * whole log is cleared when the id of a round is issued. `cleared-chunks-only`: a hint is taken only
 * of pages that no postponed clear can spoil, which are those that the sync found clean.
 */
export const HINT_REMEDIES = ['none', 'clear-at-id', 'cleared-chunks-only'] as const;
export type HintRemedy = (typeof HINT_REMEDIES)[number];

export interface DirtyLogParams {
  readonly dirtyLog: DirtyLogPolicy;
  readonly hintRemedy: HintRemedy;
  /** Pages of a chunk whose log is cleared at once, as a power of two (x-clear-bitmap-shift): 6 … 31. */
  readonly clearBitmapShift: number;
}

/** QEMU's default: chunks of 1 GiB. */
const CLEAR_BITMAP_SHIFT = 18;
export const CLEAR_BITMAP_SHIFT_MIN = 6;
export const CLEAR_BITMAP_SHIFT_MAX = 31;
/** KVM's dirty ring as QEMU's documentation sets it up, entries. */
export const DIRTY_RING_ENTRIES = 4096;

/** What is left out is as here. */
export const DEFAULT_DIRTY_LOG: DirtyLogParams = {
  dirtyLog: 'tcg',
  hintRemedy: 'none',
  clearBitmapShift: CLEAR_BITMAP_SHIFT,
};

/** Hypervisors by what they do with a dirty log. QEMU has had INITIALLY_SET with KVM since 5.1. */
export const HYPERVISORS = {
  'qemu-7.2-tcg': DEFAULT_DIRTY_LOG,
  'qemu-7.2-kvm': { ...DEFAULT_DIRTY_LOG, dirtyLog: 'kvm-bitmap' },
  'qemu-10-tcg': DEFAULT_DIRTY_LOG,
  'qemu-10-kvm': { ...DEFAULT_DIRTY_LOG, dirtyLog: 'kvm-bitmap' },
} as const satisfies Readonly<Record<string, DirtyLogParams>>;
export type HypervisorName = keyof typeof HYPERVISORS;
/**
 * The profile of a hypervisor as a recording describes it (`QEMU 10.0.13 (Debian 13), TCG …`); null:
 * none is known by these words.
 */
export function hypervisorOf(description: string): HypervisorName | null {
  const major = Number(/QEMU (\d+)/.exec(description)?.[1]);
  const accelerator = /\b(TCG|KVM)\b/.exec(description)?.[1]?.toLowerCase();
  if (!Number.isInteger(major) || !accelerator) return null;
  return `qemu-${major >= 10 ? '10' : '7.2'}-${accelerator as 'tcg' | 'kvm'}`;
}

export const HYPERVISOR_NAMES = Object.keys(HYPERVISORS) as HypervisorName[];

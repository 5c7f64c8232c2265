/**
 * What every operation costs, in nanoseconds: the one table of both processes.
 * docs/costs.md says where each default comes from and how to measure it on another machine.
 */
export interface Costs {
  /** Host: copy one non-zero page into the migration stream, its zero check included. */
  readonly sendPageNs: number;
  /** Host: find that a page is all zero and write its header. */
  readonly sendZeroPageNs: number;
  /** Host: synchronise the dirty log, per page of guest RAM. */
  readonly dirtySyncPageNs: number;
  /** Host: stop or start the vCPUs and save or load device state. */
  readonly vmStopNs: number;
  /** From a queue notification to the device's handler. */
  readonly notifyNs: number;
  /** From a configuration change on the host to the driver's work item running in the guest. */
  readonly configWorkNs: number;
  /** Host: take one element from a queue and complete it. */
  readonly elementNs: number;
  /** Host: apply one PFN of an inflate or deflate buffer. */
  readonly balloonPfnNs: number;
  /** Guest: one trip through the page allocator. */
  readonly allocNs: number;
  /** Guest: zero or poison one page whose host page exists. */
  readonly clearPageNs: number;
  /** Guest: extra time for the first touch of a page that the host has not yet backed. */
  readonly hostFaultNs: number;
  /** Guest: the first write to a page since its dirty bit was cleared, a fault of write protection. */
  readonly dirtyFaultNs: number;
  /** Guest: visit one free list node while the zone lock is held. */
  readonly listNodeNs: number;
  /** Guest: lock or unlock a zone with interrupts off. */
  readonly zoneLockNs: number;
  /** Guest: copy one page to another frame and change what maps it. */
  readonly migratePageNs: number;
  /** Guest: try to lock and unmap one page, or to freeze its references, in vain or not. */
  readonly migrateAttemptNs: number;
  /** Guest: one of compaction's scanners looks at one page frame. */
  readonly scanPfnNs: number;
  /** Guest: take one page off the LRU and, if it cannot be moved, put it back. */
  readonly isolatePageNs: number;
  /** Guest: flush a translation on all vCPUs: an interrupt to each and its answer. */
  readonly tlbFlushNs: number;
  /** Guest: put one element on a virtqueue. */
  readonly queueElementNs: number;
}

export const DEFAULT_COSTS: Costs = {
  sendPageNs: 1_700,
  sendZeroPageNs: 240,
  dirtySyncPageNs: 2,
  vmStopNs: 1_500_000,
  notifyNs: 20_000,
  configWorkNs: 5_000_000,
  elementNs: 1_000,
  balloonPfnNs: 300,
  allocNs: 500,
  clearPageNs: 1_080,
  hostFaultNs: 8_700,
  dirtyFaultNs: 0,
  listNodeNs: 20,
  zoneLockNs: 100,
  migratePageNs: 20_000,
  migrateAttemptNs: 170,
  scanPfnNs: 30,
  isolatePageNs: 200,
  tlbFlushNs: 2_000,
  queueElementNs: 300,
};

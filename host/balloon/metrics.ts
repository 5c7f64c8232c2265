import type { StateFields } from '../state/fields.ts';

/** Counters of the balloon device: its observation point. Every one only ever grows. */
export interface BalloonMetrics {
  /** Everything the driver did that the specification forbids; the others below say what. */
  protocol_violations: number;
  /** `avail` messages that could not be read, or came for no queue, or before DRIVER_OK. */
  bad_messages: number;
  /** Chains with a head outside the ring or one that the device holds already. */
  bad_heads: number;
  /** Chains with a segment that cannot be mapped, of a device that breaks on it. */
  bad_segments: number;
  /** Chains on a queue of the other direction. */
  bad_directions: number;
  /** Inflate or deflate buffers that are no whole number of PFNs, empty, or too long. */
  bad_lengths: number;
  /** PFNs outside guest memory. */
  bad_pfns: number;
  inflated_pfns: number;
  deflated_pfns: number;
  /** PFNs inflated while in the balloon, and deflated while not in it. */
  double_inflated_pfns: number;
  double_deflated_pfns: number;
  /** Of inflated, reported and, if the device discards them, hinted pages. */
  discarded_pages: number;
  inhibited_discards: number;
  hint_rounds: number;
  hint_commands: number;
  /** Command ids that were not the current one, or came when none was asked for. */
  hint_stale_ids: number;
  hints_accepted: number;
  hint_pages_accepted: number;
  /** Blocks that arrived outside their round: acknowledged, and otherwise ignored. */
  hints_late: number;
  hint_pages_late: number;
  /** Blocks outside guest memory or not made of whole pages. */
  bad_hints: number;
  /** Ranges that the guest reported free, and their pages. */
  reports: number;
  report_pages: number;
  /** Of them: acknowledged and left alone, because freed pages are to keep poison_val. */
  reports_poisoned: number;
  /** Ranges outside guest memory or not made of whole pages. */
  bad_reports: number;
  /** Answers to requests for statistics, and the first buffer; the requests. */
  stats_reports: number;
  stats_requests: number;
  /** Entries with a tag that the device does not know. */
  stats_unknown_tags: number;
  /** Statistics buffers that came while one was held: that one went back. */
  second_stats_buffers: number;
  /** Chains on a queue whose feature the driver has declined. */
  declined_queue_chains: number;
  /** `avail` messages that waited for DRIVER_OK, or for the device to be resumed. */
  held_notifications: number;
}

export function newBalloonMetrics(): BalloonMetrics {
  return {
    protocol_violations: 0,
    bad_messages: 0,
    bad_heads: 0,
    bad_segments: 0,
    bad_directions: 0,
    bad_lengths: 0,
    bad_pfns: 0,
    inflated_pfns: 0,
    deflated_pfns: 0,
    double_inflated_pfns: 0,
    double_deflated_pfns: 0,
    discarded_pages: 0,
    inhibited_discards: 0,
    hint_rounds: 0,
    hint_commands: 0,
    hint_stale_ids: 0,
    hints_accepted: 0,
    hint_pages_accepted: 0,
    hints_late: 0,
    hint_pages_late: 0,
    bad_hints: 0,
    reports: 0,
    report_pages: 0,
    reports_poisoned: 0,
    bad_reports: 0,
    stats_reports: 0,
    stats_requests: 0,
    stats_unknown_tags: 0,
    second_stats_buffers: 0,
    declined_queue_chains: 0,
    held_notifications: 0,
  };
}

/** The counters go on from those of another host. */
export function loadMetrics(metrics: BalloonMetrics, fields: StateFields): void {
  for (const [name, count] of fields.counts()) {
    if (name in metrics) metrics[name as keyof BalloonMetrics] = count;
  }
}

/** Count one forbidden thing under its own name and in the total. */
export function countViolation(metrics: BalloonMetrics, what: keyof BalloonMetrics): void {
  metrics[what]++;
  metrics.protocol_violations++;
}

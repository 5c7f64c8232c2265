/** A migration's report is made of what its source watched and what its destination found. */
import type { ArrivalReport, MigrationReport } from '../../protocol/index.ts';
import type { Pfn } from '../../shared/index.ts';

/** `historyOf`: what the source knows of a page, oldest first. */
export function withArrival(
  report: MigrationReport,
  arrival: ArrivalReport,
  historyOf: (pfn: Pfn) => readonly string[],
): MigrationReport {
  return {
    ...report,
    memory: { ...report.memory, ...arrival.memory },
    limit_bytes: arrival.limit_bytes,
    lost: arrival.lost.map(({ pfn, history }) => ({
      pfn,
      history: [...historyOf(pfn), ...history],
    })),
  };
}

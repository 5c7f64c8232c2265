/** A migration's report is made of what its source watched and what its destination found. */
import type { Pfn } from '../shared/index.ts';
import type { ArrivalReport, MigrationReport } from './control.ts';

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

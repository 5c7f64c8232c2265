/** Console commands that make free memory contiguous. */
import { Errno, errnoName } from '../../../shared/index.ts';
import { Gfp, ZoneType } from '../../mm/index.ts';
import type { Kthread } from '../../sched/kthread.ts';
import type { CommandLine } from '../command-line.ts';
import type { CommandTable } from '../console.ts';
import type { System } from '../system.ts';

const WAYS = ['manual', 'direct', 'kcompactd'] as const;

export class CompactionCommands {
  readonly counters = { contig_success: 0, contig_fail: 0 };
  readonly #system: System;

  constructor(system: System) {
    this.#system = system;
  }

  get commands(): CommandTable {
    return {
      compact: (args) => this.#compact(args),
      contig: (args) => this.#contig(args),
    };
  }

  *#compact(args: CommandLine): Kthread<string | null> {
    const { compaction } = this.#system;
    const how = args.oneOf('how', WAYS);
    for (let i = args.number('times', 1); i > 0; i--) {
      if (how === 'manual') yield* compaction.compactMemory(1);
      else if (how === 'kcompactd') {
        yield* compaction.compactFor(args.order(), ZoneType.MOVABLE);
      } else {
        yield* compaction.directCompact(args.order(), Gfp.GFP_HIGHUSER_MOVABLE, args.cpu);
      }
    }
    return null;
  }

  /** What cannot be moved is counted; frames that there are not fail the line. */
  *#contig(args: CommandLine): Kthread<string | null> {
    const { contig } = this.#system.compaction;
    const start = args.number('start');
    const end = start + args.number('size');
    const result = yield* contig.allocContigRange(start, end, args.cpu);
    if (result === Errno.EINVAL) return `${errnoName(result)}: no such frames, or of two zones`;
    if (result === Errno.OK) {
      this.counters.contig_success++;
      contig.freeContigRange(start, end, args.cpu);
    } else this.counters.contig_fail++;
    return null;
  }
}

/** Every command of the console, and what they count. */
import type { Prng } from '../../../shared/index.ts';
import type { CommandTable } from '../console.ts';
import type { System } from '../system.ts';
import { BlockCommands } from './blocks.ts';
import { CompactionCommands } from './compaction.ts';
import { driverCommands } from './driver.ts';
import { Held } from './held.ts';
import { loadCommands } from './loads.ts';
import { movableCommands } from './movable.ts';
import { processCommands } from './processes.ts';
import { softOfflineCommand } from './soft-offline.ts';

export interface Commands {
  readonly table: CommandTable;
  /** Live. */
  readonly counters: readonly Readonly<Record<string, number>>[];
}

/** `prng`: of programs that choose what they write. */
export function commandsOf(system: System, prng: Prng): Commands {
  const held = new Held();
  const blocks = new BlockCommands(system, held);
  const compaction = new CompactionCommands(system);
  const loads = loadCommands(system, prng);
  return {
    table: {
      ...held.commands,
      ...blocks.commands,
      ...compaction.commands,
      ...processCommands(system.userSpace),
      ...movableCommands(system, held),
      ...softOfflineCommand(system),
      ...driverCommands(system),
      ...loads.table,
    },
    counters: [blocks.counters, compaction.counters, loads.counters],
  };
}

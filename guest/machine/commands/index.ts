/** Every command of the console, and what they count. */
import type { CommandTable } from '../console.ts';
import type { System } from '../system.ts';
import { BlockCommands } from './blocks.ts';
import { Held } from './held.ts';
import { movableCommands } from './movable.ts';
import { softOfflineCommand } from './soft-offline.ts';

export interface Commands {
  readonly table: CommandTable;
  /** Live. */
  readonly counters: readonly Readonly<Record<string, number>>[];
}

export function commandsOf(system: System): Commands {
  const held = new Held();
  const blocks = new BlockCommands(system, held);
  return {
    table: {
      ...held.commands,
      ...blocks.commands,
      ...movableCommands(system, held),
      ...softOfflineCommand(system),
    },
    counters: [blocks.counters],
  };
}

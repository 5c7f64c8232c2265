/** Every command of the console, and what they count. */
import type { CommandTable } from '../console.ts';
import type { System } from '../system.ts';
import { BlockCommands } from './blocks.ts';
import { softOfflineCommand } from './soft-offline.ts';

export interface Commands {
  readonly table: CommandTable;
  /** Live. */
  readonly counters: readonly Readonly<Record<string, number>>[];
}

export function commandsOf(system: System): Commands {
  const blocks = new BlockCommands(system);
  return {
    table: { ...blocks.commands, ...softOfflineCommand(system) },
    counters: [blocks.counters],
  };
}

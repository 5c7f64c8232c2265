/** Lines for the guest's console: commands that there are, with arguments that may make no sense. */
import { commandsOf } from '../guest/machine/commands/index.ts';
import type { System } from '../guest/machine/system.ts';
import { Prng } from '../shared/index.ts';
import type { Draw } from './draw.ts';

const NAMES = ['vm', 'a', 'b', '', 'x'.repeat(300), '__proto__'];
const NUMBERS = [
  '1',
  '0',
  '2',
  '9',
  '16',
  '64',
  '512',
  '4096',
  '-1',
  '1e9',
  '9007199254740991',
  '99999999999999999999',
  'x',
  '',
];
const WORDS: Readonly<Record<string, readonly string[]>> = {
  access: ['read', 'write', 'x'],
  action: ['probe', 'remove', 'x', 'freeze', 'restore'],
  by: ['migration', 'x', 'vfio'],
  dma: ['true', 'false', 'x'],
  how: ['vfio', 'gup', 'x'],
  kind: ['churn', 'rewrite', 'fork', 'frag', 'tmpfs', 'pressure', 'idle', 'x'],
  name: NAMES,
  of: NAMES,
  process: NAMES,
  shmem: ['true', 'false', 'x'],
  cpu: ['0', '1', '7', 'NaN', '-1', '0.5'],
  order: NUMBERS,
  count: NUMBERS,
  keep_every: NUMBERS,
  keep: NUMBERS,
  chunk: NUMBERS,
  rate: NUMBERS,
  set: NUMBERS,
  private: NUMBERS,
  per_second: NUMBERS,
  run: NUMBERS,
  files: NUMBERS,
  file: NUMBERS,
  leave: NUMBERS,
  objects: NUMBERS,
  pages: NUMBERS,
  size: NUMBERS,
  start: NUMBERS,
  times: NUMBERS,
};
const KEYS = Object.keys(WORDS);

const commands = new WeakMap<System, readonly string[]>();

export function consoleLine(draw: Draw, system: System): string {
  let names = commands.get(system);
  if (!names) {
    names = Object.keys(commandsOf(system, new Prng(0)).table);
    commands.set(system, names);
  }
  const words = Array.from({ length: draw.pick([2, 3, 0, 1, 6]) }, () => {
    const key = draw.pick(KEYS);
    return `${key}=${draw.pick(WORDS[key]!)}`;
  });
  return [draw.pick(names), ...words].join(' ');
}

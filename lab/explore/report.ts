import type { ExploreStep } from '../../protocol/index.ts';
import type { ExplorationResult } from './explore.ts';

/** What an exploration found, for a terminal of 100 columns. */

const WIDTH = 100;
const NUMBER_WIDTH = 4;
const ACTOR_WIDTH_MAX = 22;

/** `repeat`: the command that gives this violation again. */
export function renderExploration(result: ExplorationResult, repeat: string): string {
  const { violation } = result;
  if (violation === null) return summary(result);
  const { found, reduced, without } = violation;
  const lines = [
    `violation: ${violation.violation.invariant}`,
    ...wrap(violation.violation.message, WIDTH - 2).map((line) => `  ${line}`),
    `seed ${violation.violation.seed}, ${violation.policy}`,
    `reduced from ${lengthOf(found)} to ${lengthOf(reduced)}${describeWithout(without)}`,
    '',
    ...traceLines(violation.trace),
    '',
    summary(result),
    `repeat: ${repeat}`,
  ];
  return lines.join('\n');
}

/** `100,000 schedules, no violation (2,345/s, 71 steps each)`. */
function summary({ schedules, ran, steps, elapsedMs, violation }: ExplorationResult): string {
  const counted = `${grouped(schedules)} schedule${schedules === 1 ? '' : 's'}`;
  const each = `${ran === 0 ? 0 : Math.round(steps / ran)} steps each`;
  if (violation) return `${counted}, a violation in the last (${each})`;
  const perSecond = Math.round(ran / Math.max(elapsedMs / 1000, 0.001));
  return `${counted}, no violation (${grouped(perSecond)}/s, ${each})`;
}

/** Number, actor, and what it did; then where it stands. */
function traceLines(trace: readonly ExploreStep[]): string[] {
  const names = trace.map((step) => step.actor.length);
  const actorWidth = Math.min(ACTOR_WIDTH_MAX, Math.max(5, ...names));
  const left = NUMBER_WIDTH + 2 + actorWidth + 2;
  let previous = '';
  return trace.flatMap((step) => {
    const did = [...step.notes, ...(step.at === '' ? [] : [`→ ${step.at}`])].join('; ');
    const actor = step.actor === previous ? '' : step.actor;
    previous = step.actor;
    const number = String(step.number).padStart(NUMBER_WIDTH);
    const [first = '', ...more] = wrap(did, WIDTH - left);
    const head = `${number}  ${actor.slice(0, actorWidth).padEnd(actorWidth)}  ${first}`;
    return [head.trimEnd(), ...more.map((line) => ' '.repeat(left) + line)];
  });
}

function describeWithout(without: readonly string[]): string {
  return without.length === 0 ? '' : `, without ${without.join(', ')}`;
}

function lengthOf({ steps, switches }: { steps: number; switches: number }): string {
  return `${steps} steps (${switches} context switch${switches === 1 ? '' : 'es'})`;
}

export function grouped(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ',');
}

/** Lines of at most `width`; a word that is longer stays whole. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}

import { availableParallelism } from 'node:os';
import { InvalidArgumentError } from 'commander';
import {
  CONVERGENCE_POLICIES,
  type ConvergencePolicy,
  STRATEGIES,
  type StrategyName,
} from '../../protocol/control.ts';

/** Values of command-line options, each with a clear refusal. */

export function parseStrategies(text: string): StrategyName[] {
  return text.split(',').map((name) => parseStrategy(name.trim()));
}

export function parseStrategy(text: string): StrategyName {
  const strategy = STRATEGIES.find((name) => name === text);
  if (!strategy)
    throw new InvalidArgumentError(`Expected one of ${STRATEGIES.join(', ')}, found "${text}".`);
  return strategy;
}

export function parsePolicies(text: string): ConvergencePolicy[] {
  return text.split(',').map((name) => {
    const policy = CONVERGENCE_POLICIES.find((one) => one === name.trim());
    if (policy) return policy;
    const known = CONVERGENCE_POLICIES.join(', ');
    throw new InvalidArgumentError(`Expected one of ${known}, found "${name}".`);
  });
}

export function parseSeed(text: string): number {
  return parseInteger(text, 0, 0xffff_ffff);
}

export function parseJobs(text: string): number {
  return parseInteger(text, 1, 256);
}

/** The two processes of a machine take turns: one machine for each core. */
export function defaultJobs(): number {
  return availableParallelism();
}

/** For options that may be given several times. */
export function collect(text: string, previous: readonly string[] = []): string[] {
  return [...previous, text];
}

function parseInteger(text: string, minimum: number, maximum: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= minimum && value <= maximum) return value;
  throw new InvalidArgumentError(
    `Expected a whole number from ${minimum} to ${maximum}, found "${text}".`,
  );
}

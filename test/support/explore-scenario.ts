import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseExploration } from '../../lab/explore/load.ts';
import type { ExploreScenario } from '../../protocol/index.ts';

const folder = fileURLToPath(new URL('../../scenarios/explore/', import.meta.url));

/** A scenario of scenarios/explore/ by its name. */
export function exploreScenario(name: string): ExploreScenario {
  const path = `${folder}${name}.yaml`;
  return parseExploration(path, readFileSync(path, 'utf8'));
}

import type { PlantName } from '../../shared/index.ts';

/** The scenario of scenarios/explore/ that finds each planted bug: what `--plant` alone explores. */
export const PLANT_HOMES: Readonly<Record<PlantName, string>> = {
  'hwpoison-on-failure': 'soft-offline',
  'putback-after-success': 'isolate',
  'isolate-without-page-lock': 'zspool',
  'driver-clears-movable-of-isolated': 'zspool',
  'balloon-frees-isolated': 'isolate',
  'leak-on-enomem': 'isolate',
  'dangling-iterator-cursor': 'hinting',
  'late-hint-accepted': 'hinting',
  'dirty-log-cleared-at-hint': 'hinting',
  'hint-discards-without-ack': 'hint-discards',
  'hints-trusted-free-pages': 'poison',
};

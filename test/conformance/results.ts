/**
 * What became of the suite on each device, kept until all of them are through: for one table. Only a
 * run against peers prints one; it makes the folder and tells its test processes.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const VARIABLE = 'BALLAST_CONFORMANCE_RESULTS';

interface DeviceResults {
  readonly device: string;
  /** By title. */
  readonly passed: readonly string[];
  readonly failed: readonly string[];
}

export function openResults(): void {
  process.env[VARIABLE] = mkdtempSync(join(tmpdir(), 'ballast-conformance-'));
}

export function saveResults(results: DeviceResults): void {
  const folder = process.env[VARIABLE];
  if (folder === undefined) return;
  const name = results.device.replaceAll(/\W+/g, '-');
  writeFileSync(join(folder, `${name}.json`), JSON.stringify(results));
}

/** All that were saved; the folder goes. */
export function takeResults(): DeviceResults[] {
  const folder = process.env[VARIABLE];
  if (folder === undefined) return [];
  const results = readdirSync(folder)
    .sort()
    .map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as DeviceResults);
  rmSync(folder, { recursive: true, force: true });
  return results;
}

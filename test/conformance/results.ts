/** What became of the suite on each device, kept until all of them are through: for one table. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const FOLDER = fileURLToPath(
  new URL('../../node_modules/.cache/ballast-conformance', import.meta.url),
);

export interface DeviceResults {
  readonly device: string;
  /** By title. */
  readonly passed: readonly string[];
  readonly failed: readonly string[];
}

export function saveResults(results: DeviceResults): void {
  mkdirSync(FOLDER, { recursive: true });
  const name = results.device.replaceAll(/\W+/g, '-');
  writeFileSync(`${FOLDER}/${name}.json`, JSON.stringify(results));
}

export function loadResults(): DeviceResults[] {
  mkdirSync(FOLDER, { recursive: true });
  return readdirSync(FOLDER)
    .sort()
    .map((name) => JSON.parse(readFileSync(`${FOLDER}/${name}`, 'utf8')) as DeviceResults);
}

export function forgetResults(): void {
  rmSync(FOLDER, { recursive: true, force: true });
}

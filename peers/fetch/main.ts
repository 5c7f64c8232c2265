/**
 * `npm run peers`, `ballast peers`: fetch what the tests against real counterparts need, once.
 *   --update-lock   write peers/fetch/lock.json anew from what the archive has today
 * Exit status: 0 all there; 2 something cannot be had, one line says what.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder, LOCK_URL, PARTS_FILE, readLockText } from './lock.ts';

async function main(args: readonly string[]): Promise<void> {
  const unknown = args.find((arg) => arg !== '--update-lock');
  if (unknown) throw new Error(`unknown argument ${unknown}: only --update-lock is known`);
  const update = args.length > 0;
  const folder = cacheFolder(readLockText());
  if (!update && existsSync(join(folder, PARTS_FILE))) return console.log(`peers: ${folder}`);
  // Loaded only now: the usual case is that everything is there.
  const { fetchPeers, missingPrograms, newestLock } = await import('./fetch.ts');
  const say = (line: string) => console.error(`peers: ${line}`);
  const missing = await missingPrograms();
  if (missing.length > 0) {
    throw new Error(`${missing.join(', ')} missing: parts come from Debian packages through apt`);
  }
  if (update) writeFileSync(LOCK_URL, `${JSON.stringify(await newestLock(say), null, 2)}\n`);
  else console.log(`peers: ${await fetchPeers(readLockText(), say)}`);
}

main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(`peers: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 2;
});

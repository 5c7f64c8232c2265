import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

/** Where the parts of this package lie, both in a checkout (.ts) and in a built package (dist/*.js). */

const here = fileURLToPath(import.meta.url);
const fromSources = here.endsWith('.ts');
/** Folder of lab/, host/, guest/ and explorer/. */
const codeRoot = dirname(dirname(dirname(here)));
/** Folder of package.json and scenarios/. */
export const packageRoot = fromSources ? codeRoot : dirname(codeRoot);

/** Where an entry lies that is not in the folder of its name. */
const FOLDERS: Readonly<Record<string, string>> = { linux: 'peers/linux', peers: 'peers/fetch' };

/** In a checkout: a folder of bundled entries, made from the sources by whoever sets it. */
export const BUNDLES_VARIABLE = 'BALLAST_BUNDLES';

/** Arguments for Node that start the given process of the machine. */
export function entryArguments(role: 'host' | 'guest' | 'linux' | 'explorer' | 'peers'): string[] {
  const folder = FOLDERS[role] ?? role;
  if (!fromSources) return [`${codeRoot}/${folder}/main.js`];
  const bundle = `${process.env[BUNDLES_VARIABLE]}/${role}.mjs`;
  if (existsSync(bundle)) return ['--enable-source-maps', bundle];
  const loader = createRequire(import.meta.url).resolve('tsx/esm');
  return ['--import', pathToFileURL(loader).href, `${codeRoot}/${folder}/main.ts`];
}

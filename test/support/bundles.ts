/**
 * Bundles the entries of processes once for all tests, from the sources as they are: a process then
 * starts in a third of the time. `npm start` in CI goes the way of a checkout, without them.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { type BuildOptions, build } from 'esbuild';
import { BUNDLES_VARIABLE } from '../../lab/process/paths.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Within the package, so that what is not bundled is found. */
const CACHE = `${ROOT}node_modules/.cache`;
const ROLES = ['host', 'guest', 'explorer'] as const;

export default async function setup(): Promise<() => void> {
  mkdirSync(CACHE, { recursive: true });
  const folder = mkdtempSync(`${CACHE}/ballast-bundles-`);
  const common = {
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    target: 'node20',
    keepNames: true,
    sourcemap: 'inline',
    logLevel: 'error',
  } as const satisfies BuildOptions;
  const roles = ROLES.map((role) => [role, `${ROOT}${role}/main.ts`]);
  // The command line asks where it lies, and means its sources.
  const here = pathToFileURL(`${ROOT}lab/process/paths.ts`).href;
  await Promise.all([
    build({ ...common, entryPoints: Object.fromEntries(roles) }),
    build({
      ...common,
      entryPoints: { cli: `${ROOT}lab/cli/main.ts` },
      define: { 'import.meta.url': JSON.stringify(here) },
    }),
  ]);
  process.env[BUNDLES_VARIABLE] = folder;
  return () => rmSync(folder, { recursive: true });
}

#!/usr/bin/env node
// The command line. In a checkout it runs the sources through tsx, in an installed package the
// compiled files.
import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const source = new URL('../lab/cli/main.ts', import.meta.url);
let entry = new URL('../dist/lab/cli/main.js', import.meta.url);
// Whoever has bundled the entries of a checkout (its tests) says where.
const bundle = `${process.env['BALLAST_BUNDLES']}/cli.mjs`;
if (existsSync(source)) {
  if (existsSync(bundle)) entry = pathToFileURL(bundle);
  else {
    const { register } = await import('tsx/esm/api');
    register();
    entry = source;
  }
}
const { main } = await import(entry.href);
try {
  process.exitCode = await main(process.argv);
} catch (error) {
  // A fault of our own is no failed expectation, which is what Node's own status 1 would say.
  process.stderr.write(`${error instanceof Error ? error.stack : error}\n`);
  process.exitCode = 3;
}

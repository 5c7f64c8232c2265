#!/usr/bin/env node
// The command line. In a checkout it runs the sources through tsx, in an installed package the
// compiled files.
import { existsSync } from 'node:fs';

const source = new URL('../lab/cli/main.ts', import.meta.url);
let entry = new URL('../dist/lab/cli/main.js', import.meta.url);
if (existsSync(source)) {
  const { register } = await import('tsx/esm/api');
  register();
  entry = source;
}
const { main } = await import(entry.href);
process.exitCode = await main(process.argv);

/** Compiles the C references into a temporary folder, where there is a compiler, and runs them. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';

const SOURCE = fileURLToPath(new URL('./reference.c', import.meta.url));

/** Path of the program, or null: no `cc`, or it failed. The folder goes when this process ends. */
export function compileReference(): string | null {
  const folder = mkdtempSync(`${tmpdir()}/ballast-bench-`);
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  try {
    execFileSync('cc', ['-O2', '-o', `${folder}/reference`, SOURCE], { stdio: 'ignore' });
    return `${folder}/reference`;
  } catch {
    return null;
  }
}

/** Nanoseconds that the program measured. */
export function runReference(program: string, ...args: readonly (string | number)[]): number {
  return Number(execFileSync(program, args.map(String), { encoding: 'utf8' }));
}

import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { packageRoot } from '../process/paths.ts';

/** Where the command line writes: results on stdout, everything else on stderr. */

/** A reader that has gone (`| head`) is no error. */
export function guardOutput(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit();
      throw error;
    });
  }
}

/** One line per problem on stderr, each with our name in front. */
export function complain(message: string): void {
  for (const line of message.split('\n')) process.stderr.write(`ballast: ${line}\n`);
}

export function print(text: string): void {
  process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
}

/** `-` is stdout. */
export async function writeJson(file: string, value: unknown): Promise<void> {
  const text = `${JSON.stringify(value, null, 2)}\n`;
  if (file === '-') print(text);
  else await writeFile(file, text);
}

/** Colour for people only (https://no-color.org). */
export function wantsColor(): boolean {
  const { NO_COLOR } = process.env;
  return process.stdout.isTTY === true && !NO_COLOR;
}

export function ballastVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(`${packageRoot}/package.json`, 'utf8'));
  const version = (manifest as { version?: unknown }).version;
  return typeof version === 'string' ? version : 'unknown';
}

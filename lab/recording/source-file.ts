/** Files of a recording, gzipped or plain: opened, streamed, and their faults said in one line. */
import { closeSync, createReadStream, existsSync, openSync, readSync } from 'node:fs';
import { basename, join } from 'node:path';
import { createGunzip } from 'node:zlib';
import { BallastError } from '../../shared/index.ts';

const CHUNK_BYTES = 1 << 20;

/** `folder/name.gz`, or `folder/name` if only that is there. */
export function findSource(folder: string, name: string): string {
  const packed = join(folder, `${name}.gz`);
  if (existsSync(packed)) return packed;
  const plain = join(folder, name);
  if (existsSync(plain)) return plain;
  throw new BallastError('FILE_MISSING', `${packed}: expected this file, found none`);
}

/** The content in chunks, unpacked if its first bytes are gzip's; a broken file is a BallastError. */
export async function* readSource(path: string): AsyncGenerator<Uint8Array> {
  const file = basename(path);
  try {
    if (!isGzip(path)) {
      yield* createReadStream(path, { highWaterMark: CHUNK_BYTES });
      return;
    }
    const input = createReadStream(path, { highWaterMark: CHUNK_BYTES });
    const gunzip = createGunzip({ chunkSize: CHUNK_BYTES });
    input.on('error', (error) => gunzip.destroy(error));
    try {
      yield* input.pipe(gunzip);
    } finally {
      input.destroy();
    }
  } catch (error) {
    throw asBallastError(error, file, path);
  }
}

/** The whole content; more than `maxBytes` is refused before it is kept. */
export async function readSourceWhole(path: string, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let total = 0;
  for await (const chunk of readSource(path)) {
    total += chunk.length;
    if (total > maxBytes) {
      const message = `${basename(path)}: expected at most ${maxBytes} bytes, found more`;
      throw new BallastError('RECORDING_MALFORMED', message);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, total);
}

function isGzip(path: string): boolean {
  const start = new Uint8Array(2);
  const descriptor = openSync(path, 'r');
  try {
    return readSync(descriptor, start, 0, 2, 0) === 2 && start[0] === 0x1f && start[1] === 0x8b;
  } finally {
    closeSync(descriptor);
  }
}

function asBallastError(error: unknown, file: string, path: string): unknown {
  if (error instanceof BallastError || !(error instanceof Error)) return error;
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (code === 'ENOENT') {
    return new BallastError('FILE_MISSING', `${path}: expected this file, found none`);
  }
  if (code === 'Z_BUF_ERROR') {
    const message = `${file}: expected a complete gzip file, found one that was cut off`;
    return new BallastError('RECORDING_MALFORMED', message);
  }
  if (code.startsWith('Z_')) {
    const message = `${file}: expected a gzip file, found damaged data (${error.message})`;
    return new BallastError('RECORDING_MALFORMED', message);
  }
  if (code !== '') return new BallastError('BAD_INPUT', `${path}: cannot be read (${code})`);
  return error;
}

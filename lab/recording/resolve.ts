import { createHash } from 'node:crypto';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, resolve } from 'node:path';
import { hypervisorOf } from '../../protocol/dirty-log.ts';
import { BallastError, MIB } from '../../shared/index.ts';
import type { RecordingHeader } from '../../shared/recording/index.ts';
import { readRecording } from '../../shared/recording/reader.ts';
import { encodeRecording } from '../../shared/recording/writer.ts';
import { onExit, removeFolder } from '../process/cleanup.ts';
import { packageRoot } from '../process/paths.ts';
import type { MeasuredRun, RecordingFacts } from './facts.ts';

/** Finds a recording by what a person calls it, and reads what the laboratory needs of it. */

/**
 * A `.ballast` file, a name in scenarios/recordings/ or a folder in the recorder's format, which is
 * imported on the fly. Relative paths count from `scenarioFile`, then from the working folder.
 * @throws BallastError FILE_MISSING, RECORDING_MALFORMED, RECORDING_LOST_EVENTS.
 */
export async function resolveRecording(
  name: string,
  scenarioFile?: string,
): Promise<RecordingFacts> {
  const path = await findRecording(name, scenarioFile);
  const info = await stat(path);
  const file = info.isDirectory() ? await importFolder(path) : path;
  return factsOf(readRecording(file).header, file, await sha256Of(file));
}

/** Path of the compact file or folder. @throws BallastError FILE_MISSING. */
export async function findRecording(name: string, scenarioFile?: string): Promise<string> {
  const candidates = [
    ...(scenarioFile ? [resolve(dirname(scenarioFile), name)] : []),
    resolve(name),
    ...(/^[\w.-]+$/.test(name)
      ? [`${packageRoot}/scenarios/recordings/${basename(name, '.ballast')}.ballast`]
      : []),
  ];
  for (const path of candidates) {
    const info = await stat(path).catch(() => null);
    // A folder that merely has the name of a recording is none.
    if (
      info?.isFile() ||
      (info?.isDirectory() && (await stat(`${path}/recording.json`).catch(() => null)))
    )
      return path;
  }
  throw new BallastError(
    'FILE_MISSING',
    `${name}: expected a recording (.ballast, a folder, or a name in scenarios/recordings/), found none`,
  );
}

/** The guest process reads the compact form only, so a folder is converted for this run. */
async function importFolder(folder: string): Promise<string> {
  const { importRecording } = await import('./import.ts');
  const recording = await importRecording(folder, {});
  const temporary = mkdtempSync(`${tmpdir()}/ballast-import-`);
  onExit(() => removeFolder(temporary));
  const file = `${temporary}/${recording.header.name.replace(/[^\w.-]/g, '_')}.ballast`;
  writeFileSync(file, encodeRecording(recording));
  return file;
}

async function sha256Of(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}

function factsOf(header: RecordingHeader, path: string, sha256: string): RecordingFacts {
  const measured: MeasuredRun[] = header.measured.map(
    ({ free_page_hint, series: _, ...figures }) => ({
      freePageHint: free_page_hint,
      figures,
    }),
  );
  return {
    name: header.name,
    path,
    sha256,
    memoryBytes: header.memMiB * MIB,
    ramPages: header.frameCount,
    vcpus: header.vcpus,
    mm: {
      initOnAlloc: header.initOnAlloc,
      initOnFree: isSet(header.kernelParameters, 'init_on_free'),
      pagePoison: isSet(header.kernelParameters, 'page_poison'),
    },
    bandwidthBytesPerS: header.bandwidthBytesPerS,
    downtimeLimitMs: header.downtimeLimitMs,
    migrateAtNs: header.migrateAtNs,
    // An idle guest's last event may lie long before the end of what was recorded.
    traceEndNs: Math.max(header.traceEndNs, header.migratedAtNs),
    hypervisor: hypervisorOf(header.hypervisor),
    measured,
  };
}

/** Whether a kernel parameter was switched on, as the kernel's own parser reads booleans. */
function isSet(kernelParameters: string, name: string): boolean {
  const last = kernelParameters.split(/\s+/).findLast((word) => word.startsWith(`${name}=`));
  return last !== undefined && /^(1|y|on)/i.test(last.slice(name.length + 1));
}

import { stat } from 'node:fs/promises';
import type { Command } from 'commander';
import { readRecording } from '../../shared/recording/reader.ts';
import { formatBytes } from '../input/units.ts';
import { findRecording } from '../recording/resolve.ts';
import { IMPORT_GUIDE, INSPECT_GUIDE } from './guide.ts';
import { complain, print } from './output.ts';
import { ProgressDisplay } from './progress.ts';

/** `ballast import` and `ballast inspect`: recordings as files. */

interface ImportFlags {
  readonly output: string;
  readonly allowLostEvents?: boolean;
  readonly tolerateMalformed?: boolean;
}

export function addImportCommand(program: Command): void {
  program
    .command('import')
    .description('make a compact recording from the folder that a recorder left')
    .argument('<folder>', 'recording.json, kpageflags.*, trace.txt.gz, zero-pages.bitmap.gz')
    .requiredOption('-o, --output <file>', 'compact file to write (.ballast)')
    .option('--allow-lost-events', 'accept a trace in which events were lost')
    .option('--tolerate-malformed', 'skip lines that are not trace lines')
    .addHelpText('after', IMPORT_GUIDE)
    .action(async (folder: string, flags: ImportFlags) => {
      const recording = await importWithProgress(folder, flags);
      const { writeRecording } = await import('../recording/import.ts');
      const { sizeBytes } = writeRecording(recording, flags.output);
      const { count } = recording.events;
      complain(
        `${flags.output}: ${recording.header.name}, ${count} events, ${formatBytes(sizeBytes)}`,
      );
    });
}

export function addInspectCommand(program: Command): void {
  program
    .command('inspect')
    .description(
      'what is in a recording: free memory by order over time, events, allocation classes',
    )
    .argument('<recording>', 'name in scenarios/recordings/, .ballast file or folder')
    .option('--json', 'the same as JSON')
    .addHelpText('after', INSPECT_GUIDE)
    .action(async (name: string, flags: { json?: boolean }) => {
      const path = await findRecording(name);
      const isFolder = (await stat(path)).isDirectory();
      const recording = isFolder ? await importWithProgress(path, {}) : readRecording(path);
      const { inspectRecording } = await import('../recording/inspect.ts');
      const { renderInspection } = await import('../recording/inspection-table.ts');
      const inspection = inspectRecording(recording);
      print(flags.json ? JSON.stringify(inspection, null, 2) : renderInspection(inspection));
    });
}

async function importWithProgress(folder: string, flags: Omit<ImportFlags, 'output'>) {
  const progress = new ProgressDisplay();
  try {
    const { importRecording } = await import('../recording/import.ts');
    return await importRecording(folder, {
      allowLostEvents: flags.allowLostEvents ?? false,
      tolerateMalformed: flags.tolerateMalformed ?? false,
      onProgress: ({ what, done, total }) =>
        progress.report('import', { what, done, total: total ?? 0 }),
    });
  } finally {
    progress.stop();
  }
}

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = mkdtempSync(`${tmpdir()}/cli-test-`);
afterAll(() => rmSync(folder, { recursive: true }));

function ballast(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [`${root}bin/ballast.mjs`, ...args],
    {
      encoding: 'utf8',
      cwd: folder,
      timeout: 50_000,
    },
  );
  return { status, stdout, stderr };
}

function file(name: string, text: string): string {
  writeFileSync(`${folder}/${name}`, text);
  return name;
}

describe('bad input is one line on stderr and exit status 2:', () => {
  const truncated = `${folder}/cut.ballast`;
  copyFileSync(`${root}scenarios/recordings/idle-1g.ballast`, truncated);
  truncateSync(truncated, 50_000);

  test.each<[title: string, args: string[], line: RegExp]>([
    [
      'no such scenario',
      ['run', 'nowhere'],
      /^ballast: nowhere: expected a scenario .* found no such file$/,
    ],
    [
      'an unknown key',
      ['run', file('key.yaml', 'seed: 1\ncolour: red\n')],
      /^ballast: key\.yaml:2: colour: expected one of .*, found unknown key "colour"$/,
    ],
    [
      'a bad unit',
      ['run', file('unit.yaml', 'machine:\n  memory: 1GB\n')],
      /^ballast: unit\.yaml:2: machine\.memory: expected a size .*, found "1GB"$/,
    ],
    [
      'an impossible size',
      ['run', file('size.yaml', 'machine: { memory: 8TiB }\n')],
      /^ballast: size\.yaml:1: machine\.memory: expected a size of at most 1TiB, found "8TiB"$/,
    ],
    ['a truncated recording', ['compare', 'cut.ballast'], /^ballast: .*cut\.ballast: /],
    [
      'an unknown option',
      ['compare', 'idle-1g', '--frobnicate'],
      /^ballast: unknown option '--frobnicate'$/,
    ],
    ['an unknown command', ['frobnicate'], /^ballast: unknown command 'frobnicate'$/],
    [
      'an unknown strategy',
      ['compare', 'idle-1g', '--strategies', 'magic'],
      /^ballast: .*Expected one of none, iterate, alloc, alloc-ack, oracle, found "magic"\.$/,
    ],
    [
      'a bad override',
      ['run', 'balloon-inflate', '--set', 'seed'],
      /^ballast: --set seed: expected key\.path=value/,
    ],
    [
      'an address of no kind',
      ['host', 'balloon-inflate', '--listen', 'here'],
      /^ballast: .*expected unix:\/path or tcp:host:port, found "here"$/,
    ],
    [
      'a folder that is no recording',
      ['import', '.', '-o', 'x.ballast'],
      /^ballast: .*recording\.json/,
    ],
  ])('%s', (_title, args, line) => {
    const { status, stdout, stderr } = ballast(...args);
    expect(stderr.trimEnd().split('\n')).toEqual([expect.stringMatching(line)]);
    expect(stdout).toBe('');
    expect(status).toBe(2);
  });
});

describe('help', () => {
  test.each(['compare', 'run', 'inspect', 'import', 'host', 'guest'])(
    'of %s has an example',
    (command) => {
      const { status, stdout } = ballast(command, '--help');
      expect(stdout).toMatch(new RegExp(`\\$ ballast ${command} `));
      expect(status).toBe(0);
    },
  );

  test('explains every exit status', () => {
    const { stdout } = ballast('--help');
    for (const status of [0, 1, 2, 3]) expect(stdout).toMatch(new RegExp(`^  ${status}  `, 'm'));
  });
});

test('a reader that stops reading is no error', () => {
  const command = `"${process.execPath}" "${root}bin/ballast.mjs" inspect idle-1g --json | head -c 10; echo "\${PIPESTATUS[0]}"`;
  const { stdout, stderr } = spawnSync('bash', ['-c', command], { encoding: 'utf8' });
  expect(stderr).toBe('');
  expect(stdout.trimEnd().endsWith('0')).toBe(true);
});

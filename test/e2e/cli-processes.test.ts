import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { isGone } from '../support/is-gone.ts';

const bin = fileURLToPath(new URL('../../bin/ballast.mjs', import.meta.url));
const folder = mkdtempSync(`${tmpdir()}/cli-processes-`);
afterAll(() => rmSync(folder, { recursive: true }));

/** Keeps both processes busy for longer than any of these tests takes. */
const longScenario = `${folder}/long.yaml`;
const migrations = Array.from({ length: 200 }, () => '  - migrate\n').join('');
writeFileSync(
  longScenario,
  `recording: idle-1g\nsteps:\n  - boot\n  - workload: recording\n  - wait: 8s\n${migrations}`,
);

interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** TMPDIR is ours, so that whatever is left behind is seen. */
function start(...args: string[]): { child: ChildProcess; ended: Promise<Ended> } {
  const env = { ...process.env, TMPDIR: folder };
  const child = spawn(process.execPath, [bin, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  child.stdout?.on('data', (text) => (output.stdout += text));
  child.stderr?.on('data', (text) => (output.stderr += text));
  const ended = once(child, 'close').then(([status, signal]) => ({ status, signal, ...output }));
  return { child, ended };
}

/** Child processes of `pid` of this role. */
function childrenOf(pid: number, role: 'host' | 'guest'): number[] {
  const entry = new RegExp(`/${role}(/main\\.ts|\\.mjs)`);
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  const pids = text ? text.split(' ').map(Number) : [];
  return pids.filter((child) => entry.test(readFileSync(`/proc/${child}/cmdline`, 'utf8')));
}

async function until<T>(what: () => T | undefined): Promise<T> {
  for (let tries = 0; tries < 1200; tries++) {
    const value = what();
    if (value !== undefined) return value;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('it did not happen within 12 s');
}

async function runningPair(): Promise<{
  run: ReturnType<typeof start>;
  pids: { host: number; guest: number };
}> {
  const run = start('run', longScenario, '--strategies', 'none');
  const lab = run.child.pid ?? -1;
  const host = await until(() => childrenOf(lab, 'host')[0]);
  const guest = await until(() => childrenOf(lab, 'guest')[0]);
  // The folder of the socket goes when the two have met; from then on they work.
  await until(() => (leftovers().every(isDestinations) ? true : undefined));
  await new Promise((resolve) => setTimeout(resolve, 300));
  return { run, pids: { host, guest } };
}

/** The folder in which a destination waits, of a migration that has not begun. */
function isDestinations(name: string): boolean {
  return existsSync(`${folder}/${name}/migration.sock`);
}

const leftovers = () => readdirSync(folder).filter((name) => name.startsWith('ballast'));

describe.skipIf(process.platform !== 'linux')('the processes', () => {
  test.each(['host', 'guest'] as const)(
    'end with status 3 and one line when the %s is killed',
    async (role) => {
      const { run, pids } = await runningPair();
      process.kill(pids[role], 'SIGKILL');
      const killedMs = performance.now();
      const { status, stderr } = await run.ended;
      expect(
        stderr
          .trimEnd()
          .split('\n')
          .filter((line) => line.startsWith('ballast: ')),
      ).toEqual([`ballast: ${role} process died: killed by SIGKILL`]);
      expect(stderr).not.toContain('    at ');
      expect(status).toBe(3);
      expect(performance.now() - killedMs).toBeLessThan(2000);
      expect([isGone(pids.host), isGone(pids.guest)]).toEqual([true, true]);
      expect(leftovers()).toEqual([]);
    },
  );

  test.each(['SIGTERM', 'SIGINT', 'SIGKILL'] as const)(
    'end when the command gets %s',
    async (signal) => {
      const { run, pids } = await runningPair();
      run.child.kill(signal);
      expect((await run.ended).signal).toBe(signal);
      await until(() => (isGone(pids.host) && isGone(pids.guest) ? true : undefined));
      await until(() => (leftovers().length === 0 ? true : undefined));
    },
  );

  test('started by hand give what the pair gives', async () => {
    const address = `unix:${folder}/hand.sock`;
    const host = start('host', 'balloon-inflate', '--listen', address, '--json', '-');
    let said = '';
    host.child.stderr?.on('data', (text) => (said += text));
    await until(() => (said.includes('waiting for a guest') ? true : undefined));
    const guest = start('guest', 'balloon-inflate', '--connect', address);
    const pair = start('run', 'balloon-inflate', '--json', '-');
    const [byHand, guestEnd, together] = await Promise.all([host.ended, guest.ended, pair.ended]);
    expect([byHand.status, guestEnd.status, together.status]).toEqual([0, 0, 0]);
    const digest = (text: string): string => JSON.parse(text).runs[0].event_log_sha256;
    expect(digest(byHand.stdout)).toBe(digest(together.stdout));
    expect(readdirSync(folder)).not.toContain('hand.sock');
  });

  /** A host by hand, when it says that it waits. */
  async function waiting(...args: string[]): Promise<ReturnType<typeof start>> {
    const host = start('host', ...args);
    let said = '';
    host.child.stderr?.on('data', (text) => (said += text));
    await until(() => (said.includes('waiting for') ? true : undefined));
    return host;
  }

  test('started by hand with other settings refuse each other by the names of the keys', async () => {
    const address = `unix:${folder}/differ.sock`;
    const host = await waiting('idle-1g', '--strategy', 'alloc', '--listen', address);
    const guest = start(
      ...['guest', 'idle-1g', '--strategy', 'iterate', '--connect', address],
      ...['--set', 'mm.init_on_alloc=false'],
    );
    const [refused, refusing] = await Promise.all([host.ended, guest.ended]);
    const why =
      'host and guest differ in mm.init_on_alloc (host true, guest false), strategy (host alloc, guest iterate)';
    expect(refusing.stderr).toBe(`ballast: ${why}\n`);
    expect(refused.stderr).toContain(`\nballast: the guest ended the session: ${why}\n`);
    expect([refused.status, refusing.status]).toEqual([2, 2]);
  });

  test('started by hand as destination with other settings turn the migration away', async () => {
    const [listen, meet, stream] = ['a', 'b', 'm'].map((name) => `unix:${folder}/${name}2.sock`);
    const file = `${folder}/turned-away.yaml`;
    writeFileSync(file, 'machine: { memory: 32MiB }\nsteps: [boot, migrate]\n');
    const to = await waiting(
      ...[file, '--listen', meet!, '--incoming', stream!],
      ...['--set', 'costs.allocNs=1', '--seed', '2'],
    );
    const from = await waiting(file, '--listen', listen!, '--migrate-to', stream!);
    const guest = start('guest', file, '--connect', listen!);
    const [left, arrived, ended] = await Promise.all([from.ended, to.ended, guest.ended]);
    const why =
      'source and destination differ in costs.allocNs (source 500, destination 1), seed (source 1, destination 2)';
    expect(arrived.stderr).toContain(why);
    expect(left.stdout + left.stderr).toContain(why);
    expect([left.status, arrived.status]).toEqual([2, 2]);
    expect(ended.status).not.toBeNull();
    expect(readdirSync(folder).filter((name) => name.endsWith('.sock'))).toEqual([]);
  });

  test.each([
    ['unix', 'unix:a.sock', 'unix:b.sock', 'unix:m.sock'],
    ['tcp', 'tcp:127.0.0.1:45441', 'tcp:127.0.0.1:45442', 'tcp:127.0.0.1:45443'],
  ])('started by hand migrate a guest between two hosts: %s', async (_kind, ...addresses) => {
    const [source, destination, stream] = addresses.map((address) =>
      address.replace('unix:', `unix:${folder}/`),
    ) as [string, string, string];
    const file = `${folder}/moved.yaml`;
    writeFileSync(
      file,
      `machine: { memory: 128MiB, vcpus: 1 }
strategy: alloc
steps:
  - boot
  - process: { name: p, anonymous: 32MiB }
  - migrate
  - touch: { process: p, access: read }
  - inflate: 16MiB
  - expect: { actual_pages: 4096 }
`,
    );
    const waits = async (run: ReturnType<typeof start>, words: string): Promise<void> => {
      let said = '';
      run.child.stderr?.on('data', (text) => (said += text));
      await until(() => (said.includes(words) ? true : undefined));
    };
    const to = start('host', file, '--listen', destination, '--incoming', stream, '--json', '-');
    await waits(to, 'waiting for a migration');
    const from = start('host', file, '--listen', source, '--migrate-to', stream, '--json', '-');
    await waits(from, 'waiting for a guest');
    const guest = start('guest', file, '--connect', source);
    const [left, arrived, ended] = await Promise.all([from.ended, to.ended, guest.ended]);
    expect([left.status, arrived.status, ended.status]).toEqual([0, 0, 0]);
    expect(JSON.parse(left.stdout).runs[0].migration.status).toBe('completed');
    const [run] = JSON.parse(arrived.stdout).runs;
    expect(run.notes).toEqual([expect.stringContaining('arrived with 0 lost and 0 broken')]);
    expect([run.balloon.actual_pages, run.audit_problems]).toEqual([4096, []]);
    expect(readdirSync(folder).filter((name) => name.endsWith('.sock'))).toEqual([]);
  });

  test.each(['SIGINT', 'SIGTERM', 'kill -9 of the host'] as const)(
    'leave no socket file behind when %s ends a host that waits',
    async (how) => {
      const run = start('host', 'balloon-inflate', '--listen', `unix:${folder}/waiting.sock`);
      let said = '';
      run.child.stderr?.on('data', (text) => (said += text));
      await until(() => (said.includes('waiting for a guest') ? true : undefined));
      expect(readdirSync(folder)).toContain('waiting.sock');
      if (how === 'SIGINT' || how === 'SIGTERM') run.child.kill(how);
      else process.kill(childrenOf(run.child.pid ?? -1, 'host')[0] ?? -1, 'SIGKILL');
      await run.ended;
      expect(readdirSync(folder)).not.toContain('waiting.sock');
    },
  );

  test('refuse an address in use with one line and status 2', async () => {
    const first = start('host', 'balloon-inflate', '--listen', 'tcp:127.0.0.1:0');
    let said = '';
    first.child.stderr?.on('data', (text) => (said += text));
    const port = await until(() => /tcp:127\.0\.0\.1:(\d+)/.exec(said)?.[1]);
    const second = await start('host', 'balloon-inflate', '--listen', `tcp:127.0.0.1:${port}`)
      .ended;
    first.child.kill('SIGTERM');
    await first.ended;
    expect(second.stderr).toMatch(/^ballast: [^\n]*\n$/);
    expect(second.stderr).toContain(port);
    expect(second.status).toBe(2);
  });
});

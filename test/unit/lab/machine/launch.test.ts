import { existsSync, mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { guiltyOne } from '../../../../lab/machine/control.ts';
import { launch } from '../../../../lab/machine/launch.ts';
import type { Address } from '../../../../protocol/control.ts';

const standIn = fileURLToPath(new URL('../../../support/stand-in.mjs', import.meta.url));
const entries = (behaviour?: string) => (role: string) => [
  standIn,
  role,
  ...(behaviour ? [behaviour] : []),
];

function isAlive(pid: number | null): boolean {
  try {
    return pid !== null && process.kill(pid, 0);
  } catch {
    return false;
  }
}

describe('a machine', () => {
  afterEach(() => {
    vi.unstubAllEnvs();
    expect(process.listenerCount('SIGTERM')).toBe(0);
  });

  test('leaves no process, folder or signal handler behind', async () => {
    // A temporary directory of our own: others start machines at the same time.
    const folder = mkdtempSync(join(tmpdir(), 'launch-test-'));
    vi.stubEnv('TMPDIR', folder);
    let pids: { host: number; guest: number | null } | undefined;
    {
      await using machine = await launch({}, entries());
      pids = machine.pids;
      expect(isAlive(pids.host) && isAlive(pids.guest)).toBe(true);
    }
    expect(isAlive(pids.host) || isAlive(pids.guest)).toBe(false);
    expect(readdirSync(folder)).toEqual([]);
  });

  test('cleans up when its user throws', async () => {
    let pids: { host: number; guest: number | null } = { host: -1, guest: null };
    const attempt = async () => {
      await using machine = await launch({}, entries());
      pids = machine.pids;
      throw new Error('the test failed');
    };
    await expect(attempt()).rejects.toThrow('the test failed');
    expect(isAlive(pids.host) || isAlive(pids.guest)).toBe(false);
  });

  test.each(['host', 'guest'] as const)(
    'names the %s when it is killed, in every pending call',
    async (role) => {
      await using machine = await launch({}, entries());
      const calls = [machine.migrate(), machine.migrate()];
      process.kill(machine.pids[role] ?? -1, 'SIGKILL');
      const error = {
        code: 'PEER_CLOSED',
        exitStatus: 3,
        message: `${role} process died: killed by SIGKILL`,
      };
      for (const call of calls) await expect(call).rejects.toMatchObject(error);
      await expect(machine.status()).rejects.toMatchObject(error);
    },
  );

  test('tells the last words of a process that crashed', async () => {
    await using machine = await launch({}, entries('crash'));
    const message = 'host process died: exit status 1 (AssertionError: must hold: something)';
    await expect(machine.verify()).rejects.toMatchObject({ message });
  });

  test("prefers the host's account when only the channel broke", async () => {
    await using machine = await launch({}, entries('lost'));
    await expect(machine.verify()).rejects.toMatchObject({
      message: 'the guest closed the channel',
    });
  });

  test('leaves no host behind that its guest has left and that has not arrived', async () => {
    await using machine = await launch({}, entries('lost-at-arrival'));
    const left = machine.pids.host;
    await expect(machine.migrate()).rejects.toMatchObject({ message: 'the guest did not come' });
    expect(isAlive(left)).toBe(false);
  });

  test('passes on why the host cannot listen', async () => {
    const attempt = launch({}, entries('port-in-use'));
    await expect(attempt).rejects.toMatchObject({ code: 'ADDRESS_IN_USE', exitStatus: 2 });
  });

  test('stops waiting for a balloon that cannot reach its target', async () => {
    await using machine = await launch({ memoryBytes: 64 * 2 ** 20 }, entries());
    expect((await machine.inflate(32 * 2 ** 20)).actual_pages).toBe(8192);
    const status = await machine.inflate(32 * 2 ** 20);
    expect([status.actual_pages, status.num_pages]).toEqual([10000, 16384]);
    expect((await machine.deflate(10000 * 4096)).actual_pages).toBe(0);
  });

  test('waits for a guest that somebody else starts', async () => {
    let asked: Address | undefined;
    const listen: Address = { kind: 'tcp', host: '127.0.0.1', port: 1 };
    await using machine = await launch(
      {
        listen,
        onListening: (address) => {
          asked = address;
        },
      },
      entries(),
    );
    expect(asked).toEqual(listen);
    expect(machine.pids.guest).toBeNull();
  });

  test('refuses a replay without recording', async () => {
    await using machine = await launch({}, entries());
    await expect(machine.workload()).rejects.toMatchObject({ code: 'BAD_INPUT' });
    await expect(machine.waitUntil('migrate_at')).rejects.toMatchObject({ code: 'BAD_INPUT' });
  });
});

describe('launch refuses in one line, before anything is started', () => {
  const table: readonly [options: object, message: RegExp][] = [
    [{ memory: 5 }, /^launch: memory: expected one of recording, .*, found unknown key "memory"$/],
    [
      { memoryBytes: 6000 },
      /^launch: memoryBytes: expected a whole number of pages .*, found 6000$/,
    ],
    [{ memoryBytes: '1GiB' }, /^launch: memoryBytes: expected a number, found "1GiB"$/],
    [{ vcpus: 0 }, /^launch: vcpus: expected at least 1, found 0$/],
    [{ seed: -1 }, /^launch: seed: expected at least 0, found -1$/],
    [{ seed: 1.5 }, /^launch: seed: expected a whole number, found 1.5$/],
    [{ strategy: 'iterat' }, /^launch: strategy: expected one of none, .*, found "iterat"$/],
    [{ device: { profile: 'qemu-9' } }, /^launch: device.profile: expected one of .*"qemu-9"$/],
    [{ device: { stats_vq: true } }, /^launch: device.stats_vq: .*unknown key "stats_vq"$/],
    [{ device: 5 }, /^launch: device: expected a map of keys, found 5$/],
    [{ costs: { sendPage: 1 } }, /^launch: costs.sendPage: .*unknown key "sendPage"$/],
    [{ costs: { sendPageNs: Number.NaN } }, /^launch: costs.sendPageNs: .*found NaN$/],
    [{ mm: { initOnAlloc: 'no' } }, /^launch: mm.initOnAlloc: expected true or false, found "no"$/],
    [{ kernel: { movableZonePages: 1e9 } }, /less than the machine's 256MiB, found 1000000000$/],
    [{ migration: { bandwidthBytesPerS: 0 } }, /bandwidthBytesPerS: expected above 0, found 0$/],
    [{ hypervisor: 'xen' }, /^launch: hypervisor: expected one of qemu-7.2-tcg, .*found "xen"$/],
    [{ recording: 'idle-1g', memoryBytes: 2 ** 28 }, /expected the recording's 1GiB, or no such/],
    [{ listen: 'unix:/x' }, /^launch: listen: expected \{ kind: 'unix', path \} or .*"unix:\/x"$/],
    [{ onProgress: 3 }, /^launch: onProgress: expected a function, found 3$/],
  ];
  test.each(table)('%j', async (options, message) => {
    const nothing = () => ['--eval', 'process.exit(99)'];
    await expect(launch(options as never, nothing)).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringMatching(message),
    });
  });
});

test('who died of a signal is to blame, then who did not die of its peer', () => {
  const death = (role: 'host' | 'guest', code: number | null, signal: NodeJS.Signals | null) => ({
    role,
    code,
    signal,
    lastWords: '',
  });
  expect(guiltyOne([death('host', 3, null), death('guest', null, 'SIGKILL')]).role).toBe('guest');
  expect(guiltyOne([death('guest', 3, null), death('host', 1, null)]).role).toBe('host');
  expect(guiltyOne([death('guest', 3, null), death('host', 3, null)]).role).toBe('guest');
  expect(existsSync(standIn)).toBe(true);
});

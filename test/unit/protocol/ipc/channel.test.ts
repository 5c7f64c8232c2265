import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, connect as openSocket, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import {
  type Address,
  connect,
  encodeFrame,
  type GuestHandler,
  type GuestLink,
  type Hello,
  hostHello,
  hostLink,
  listen,
  localLink,
  type Message,
  parseAddress,
  serveGuest,
} from '../../../../protocol/index.ts';

const facts = { recordSizeBytes: 4, ramPages: 262_144, vcpus: 2 };

/** Answers `read` with the bytes it was asked with, everything else with an exit. */
const echo: GuestHandler = (messages) =>
  messages.map((message) =>
    message.name === 'read'
      ? { name: 'records', data: message.ranges }
      : {
          name: 'exit',
          at_ns: message.name === 'run' ? message.until_ns : 0,
          reason: 0,
          idle_until_ns: 0,
        },
  );

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function freshPath(): string {
  const folder = mkdtempSync(join(tmpdir(), 'ballast-'));
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, 's');
}

function freshAddress(kind: string): Address {
  return kind === 'unix'
    ? { kind: 'unix', path: freshPath() }
    : { kind: 'tcp', host: '127.0.0.1', port: 0 };
}

/** The two ends of one connection: the accepting and the connecting socket. */
async function socketPair(kind = 'unix'): Promise<{ accepted: Socket; connected: Socket }> {
  const listener = await listen(freshAddress(kind));
  const [accepted, connected] = await Promise.all([
    listener.accept(),
    connect(listener.address, 1000),
  ]);
  cleanups.push(
    () => listener.close(),
    () => accepted.destroy(),
    () => connected.destroy(),
  );
  return { accepted, connected };
}

async function pair(kind: string, handler: GuestHandler) {
  if (kind === 'local') return { link: localLink(handler, facts), guest: null };
  const { accepted, connected } = await socketPair(kind);
  return { link: hostLink(accepted), guest: serveGuest(connected, handler, facts) };
}

async function greeted(link: GuestLink): Promise<GuestLink> {
  await hostHello(link);
  return link;
}

describe.each(['unix', 'tcp', 'local'])('a session over %s', (kind) => {
  test('learns what the guest is from its hello', async () => {
    const { link } = await pair(kind, echo);
    expect(await hostHello(link)).toMatchObject({ role: 'guest', ram_pages: 262_144, vcpus: 2 });
  });

  test('answers frame after frame, several outstanding, in order', async () => {
    const { link, guest } = await pair(kind, echo);
    await greeted(link);
    const replies = await Promise.all(
      [1, 2, 2 ** 53 - 1].map((until_ns) =>
        link.exchange([{ name: 'run', until_ns, notify_ns: 0 }]),
      ),
    );
    expect(replies).toEqual(
      [1, 2, 2 ** 53 - 1].map((at_ns) => [{ name: 'exit', at_ns, reason: 0, idle_until_ns: 0 }]),
    );
    await link.close();
    expect(await link.closed).toBeNull();
    expect(guest ? await guest.closed : null).toBeNull();
    await expect(link.exchange([])).rejects.toMatchObject({ code: 'PEER_CLOSED' });
  });

  test('carries megabytes in a bin that the host may keep', async () => {
    const { link } = await pair(kind, echo);
    await greeted(link);
    const ranges = Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * 31) & 0xff);
    const [first] = await link.exchange([{ name: 'read', ranges }]);
    await link.exchange([{ name: 'read', ranges: new Uint8Array(3_000_000).fill(7) }]);
    expect(first?.name === 'records' && Buffer.compare(first.data, ranges)).toBe(0);
  });

  test('refuses a frame before the hello', async () => {
    const { link, guest } = await pair(kind, echo);
    await expect(link.exchange([{ name: 'verify' }])).rejects.toMatchObject({
      code: 'MESSAGE_UNEXPECTED',
      message: expect.stringContaining('found verify'),
    });
    if (guest) expect(await guest.closed).toMatchObject({ code: 'MESSAGE_UNEXPECTED' });
  });

  test('refuses a second hello', async () => {
    const { link } = await pair(kind, echo);
    const hello: Hello = await hostHello(link);
    await expect(link.exchange([{ ...hello, role: 'host' }])).rejects.toMatchObject({
      code: 'MESSAGE_UNEXPECTED',
    });
  });

  test('ends when the guest answers with what only a host may send', async () => {
    const { link } = await pair(kind, () => [{ name: 'irq', vector: 0 }]);
    await greeted(link);
    await expect(link.exchange([])).rejects.toMatchObject({
      code: 'MESSAGE_UNEXPECTED',
      message: 'irq: the guest may not send it',
    });
    expect(await link.closed).toMatchObject({ code: 'MESSAGE_UNEXPECTED' });
  });
});

describe('hello', () => {
  for (const change of [
    { field: 'version', value: 99, says: 'protocol version is 99, here it is 1' },
    { field: 'layout', value: 1, says: 'message layout is 1, here it is' },
    { field: 'page_size', value: 16384, says: 'page size is 16384, here it is 4096' },
    { field: 'role', value: 'host', says: 'role is "host", here it is guest' },
    { field: 'record_size', value: 5, says: 'expected record size in 4 or 4096, found 5' },
    { field: 'ram_pages', value: 0, says: 'expected RAM pages in 1 … 2^28, found 0' },
    { field: 'ram_pages', value: 2 ** 28 + 1, says: 'found 268435457' },
    { field: 'vcpus', value: 0, says: 'expected vCPUs in 1 … 1024, found 0' },
  ]) {
    test(`of the guest with ${change.field} ${change.value} is refused, both values named`, async () => {
      const real = await hostHello(localLink(echo, facts));
      const bent = { ...real, [change.field]: change.value } as Message;
      let left = false;
      const link: GuestLink = {
        exchange: async () => [bent],
        closed: Promise.resolve(null),
        close: async () => {
          left = true;
        },
      };
      await expect(hostHello(link)).rejects.toMatchObject({
        code: 'HELLO_MISMATCH',
        message: expect.stringContaining(change.says),
      });
      expect(left).toBe(true);
    });
  }

  test('of a host of another version is refused by the guest, and the host is told', async () => {
    const { link, guest } = await pair('unix', echo);
    const hello = await hostHello(localLink(echo, facts));
    const refusal = { code: 'HELLO_MISMATCH', message: expect.stringContaining('version is 2') };
    await expect(link.exchange([{ ...hello, role: 'host', version: 2 }])).rejects.toMatchObject(
      refusal,
    );
    expect(await guest?.closed).toMatchObject(refusal);
  });

  test('that never comes is given up', async () => {
    const { accepted } = await socketPair();
    await expect(hostHello(hostLink(accepted), [], 30)).rejects.toMatchObject({
      code: 'PEER_CLOSED',
      message: 'the guest did not say hello in 30 ms',
    });
  });
});

test('what a host sends before the guest serves the socket is not lost', async () => {
  const { accepted, connected } = await socketPair();
  const hello = hostHello(hostLink(accepted));
  await new Promise((resolve) => setTimeout(resolve, 30));
  serveGuest(connected, echo, facts);
  expect(await hello).toMatchObject({ role: 'guest' });
});

test("a guest's own failure rejects the exchange as it is and ends the session", async () => {
  const failure = new Error('must hold: something');
  const link = await greeted(
    localLink(() => {
      throw failure;
    }, facts),
  );
  await expect(link.exchange([])).rejects.toBe(failure);
  expect(await link.closed).toMatchObject({ code: 'PEER_CLOSED' });
});

describe('a peer that breaks the session', () => {
  test.each([
    { id: 'garbage', bytes: [3, 0, 0, 0, 0xc1, 0xc1, 0xc1], code: 'FRAME_MALFORMED' },
    { id: 'a claim of 4 GiB', bytes: [255, 255, 255, 255, 0x90], code: 'FRAME_TOO_LARGE' },
    { id: 'an empty frame', bytes: [0, 0, 0, 0], code: 'FRAME_MALFORMED' },
    {
      id: 'an unknown message',
      bytes: [4, 0, 0, 0, 0x91, 0x91, 0xcc, 0xc8],
      code: 'MESSAGE_INVALID',
    },
    {
      id: 'a message without its fields',
      bytes: [3, 0, 0, 0, 0x91, 0x91, 53],
      code: 'MESSAGE_INVALID',
    },
    { id: 'an unasked frame', bytes: [1, 0, 0, 0, 0x90], code: 'MESSAGE_UNEXPECTED' },
  ])('with $id ends it with $code, at both ends', async ({ bytes, code }) => {
    const { accepted, connected } = await socketPair();
    const link = hostLink(accepted);
    const guest = serveGuest(connected, echo, facts);
    connected.write(Uint8Array.from(bytes));
    expect(await link.closed).toMatchObject({ code });
    expect(await guest.closed).toMatchObject({
      code,
      message: expect.stringContaining('the host ended the session'),
    });
  });

  test('by an error with words of its own is told in one short line', async () => {
    const { accepted, connected } = await socketPair();
    const link = hostLink(accepted);
    const message = `two\nlines\u001b[2J and ${'x'.repeat(4000)}`;
    connected.write(encodeFrame([{ name: 'error', code: 'PEER_CLOSED', message }]));
    const told = (await link.closed)?.message ?? '';
    expect(told).toMatch(/^the guest ended the session: two lines \[2J and x+…$/);
    expect(told.length).toBeLessThan(300);
  });

  test('by closing in the middle of a frame is told apart', async () => {
    const { accepted, connected } = await socketPair();
    const link = hostLink(accepted);
    connected.end(Uint8Array.of(100, 0, 0, 0, 1, 2, 3));
    const lost = {
      code: 'PEER_CLOSED',
      message: 'the guest closed the channel, 7 bytes into a frame',
    };
    await expect(link.exchange([])).rejects.toMatchObject(lost);
    expect(await link.closed).toMatchObject(lost);
  });

  test('half a frame from one connection does not keep another waiting', async () => {
    const listener = await listen(freshAddress('unix'));
    cleanups.push(() => listener.close());
    const slow = await connect(listener.address, 1000);
    cleanups.push(() => slow.destroy());
    const slowLink = hostLink(await listener.accept());
    slow.write(Uint8Array.of(100, 0, 0));
    const quick = await connect(listener.address, 1000);
    cleanups.push(() => quick.destroy());
    const link = hostLink(await listener.accept());
    serveGuest(quick, echo, facts);
    await greeted(link);
    expect(await link.exchange([{ name: 'verify' }])).toHaveLength(1);
    slow.destroy();
    expect(await slowLink.closed).toMatchObject({ code: 'PEER_CLOSED' });
    await link.close();
  });

  test('by asking and never reading is cut off', async () => {
    const { accepted, connected } = await socketPair();
    const answer = new Uint8Array(32 << 20);
    const guest = serveGuest(connected, () => [{ name: 'records', data: answer }], facts);
    const hello: Hello = { ...(await hostHello(localLink(echo, facts))), role: 'host' };
    accepted.pause();
    const frames = [encodeFrame([hello]), ...Array(8).fill(encodeFrame([]))];
    accepted.write(Buffer.concat(frames));
    expect(await guest.closed).toMatchObject({
      code: 'FRAME_TOO_LARGE',
      message: expect.stringContaining('does not read'),
    });
  });
});

describe('an address', () => {
  test.each([
    { text: 'unix:/tmp/x', address: { kind: 'unix', path: '/tmp/x' } },
    { text: 'tcp:localhost:0', address: { kind: 'tcp', host: 'localhost', port: 0 } },
    { text: 'tcp:[::1]:65535', address: { kind: 'tcp', host: '::1', port: 65535 } },
  ])('$text is read', ({ text, address }) => {
    expect(parseAddress(text)).toEqual(address);
  });

  test.each(['', 'unix:', '/tmp/x', 'tcp:host', 'tcp::1', 'tcp:h:65536', 'tcp:h:x', 'tcp:::1:80'])(
    '"%s" is refused with what was expected',
    (text) => {
      expect(() => parseAddress(text)).toThrow('expected unix:/path or tcp:host:port');
    },
  );

  test.each(['unix', 'tcp'])('of kind %s in use is refused in one line', async (kind) => {
    const first = await listen(freshAddress(kind));
    cleanups.push(() => first.close());
    await expect(listen(first.address)).rejects.toMatchObject({
      code: 'ADDRESS_IN_USE',
      message: expect.stringMatching(/^(unix|tcp):\S+: address already in use$/),
      exitStatus: 2,
    });
  });

  test('a socket file that a dead process left behind is replaced', async () => {
    const path = freshPath();
    const server = createServer().listen(path);
    await new Promise((resolve) => server.once('listening', resolve));
    // Node removes the file of a closed server; a second name for it survives, as after kill −9.
    const { linkSync } = await import('node:fs');
    linkSync(path, `${path}2`);
    await new Promise((resolve) => server.close(resolve));
    const listener = await listen({ kind: 'unix', path: `${path}2` });
    const socket = await connect(listener.address, 1000);
    socket.destroy();
    await listener.close();
    expect(existsSync(`${path}2`)).toBe(false);
  });

  test('a file that is no socket is never removed', async () => {
    const path = freshPath();
    writeFileSync(path, 'precious');
    await expect(listen({ kind: 'unix', path })).rejects.toMatchObject({ code: 'ADDRESS_IN_USE' });
    expect(existsSync(path)).toBe(true);
  });

  test('the socket file is private and goes with the listener', async () => {
    const path = freshPath();
    const listener = await listen({ kind: 'unix', path });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const accepting = listener.accept();
    await listener.close();
    await expect(accepting).rejects.toMatchObject({ code: 'PEER_CLOSED' });
    expect(existsSync(path)).toBe(false);
  });

  test('a folder that is missing is bad input, an absent peer a lost one', async () => {
    const address: Address = { kind: 'unix', path: join(freshPath(), 'no', 's') };
    await expect(listen(address)).rejects.toMatchObject({ code: 'BAD_INPUT' });
    await expect(connect(address, 1000)).rejects.toMatchObject({ code: 'PEER_CLOSED' });
  });

  test('the port 0 becomes a real one', async () => {
    const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    cleanups.push(() => listener.close());
    expect(listener.address).toMatchObject({ kind: 'tcp', host: '127.0.0.1' });
    const { port } = listener.address as { port: number };
    expect(port).toBeGreaterThan(0);
    const socket = openSocket(port, '127.0.0.1');
    await listener.accept();
    socket.destroy();
  });
});

test('a guest that does not answer is given up', async () => {
  const { accepted, connected } = await socketPair();
  connected.resume();
  const link = hostLink(accepted, 60);
  const error = { code: 'PEER_CLOSED', message: 'the guest did not answer for 0.06 s' };
  await expect(link.exchange([{ name: 'verify' }])).rejects.toMatchObject(error);
  await expect(link.closed).resolves.toMatchObject(error);
});

test('a guest that nobody asks may be silent for as long as it likes', async () => {
  const { accepted, connected } = await socketPair();
  serveGuest(connected, echo, facts);
  const link = await greeted(hostLink(accepted, 40));
  await new Promise((resolve) => setTimeout(resolve, 150));
  await expect(link.exchange([{ name: 'verify' }])).resolves.toHaveLength(1);
});

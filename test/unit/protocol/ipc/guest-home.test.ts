/** A guest has one host at any moment: it moves whole, or it stays. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, describe, expect, test } from 'vitest';
import {
  connect,
  GuestHome,
  type GuestLink,
  hostHello,
  hostLink,
  listen,
  type Message,
  serveGuest,
} from '../../../../protocol/index.ts';

const folder = mkdtempSync(`${tmpdir()}/guest-home-`);
afterAll(() => rmSync(folder, { recursive: true }));
const FACTS = { recordSizeBytes: 4, ramPages: 64, vcpus: 1 };
const ASK: Message = { name: 'getConsole' };
const MOVE_TIMEOUT_MS = 300;
let sockets = 0;

/** The guest answers each question with how many it was asked before. */
function newHome(): GuestHome {
  let asked = 0;
  const handler = (messages: Message[]): Message[] =>
    messages.map(() => ({ name: 'consoleOutput', pending: asked++, lines: [] }));
  return new GuestHome(handler, FACTS, serveGuest, MOVE_TIMEOUT_MS);
}

async function newHost(): Promise<{ address: string; guest: Promise<GuestLink> }> {
  const path = `${folder}/${++sockets}.sock`;
  const listener = await listen({ kind: 'unix', path });
  const guest = listener.accept().then(async (socket) => {
    await listener.close();
    const link = hostLink(socket);
    await hostHello(link);
    return link;
  });
  return { address: `unix:${path}`, guest };
}

async function settled(): Promise<{ home: GuestHome; link: GuestLink }> {
  const home = newHome();
  const host = await newHost();
  home.enter(await connect({ kind: 'unix', path: host.address.slice(5) }, 1000));
  return { home, link: await host.guest };
}

describe('a guest that is told to move', () => {
  test('belongs to the other host from then on, whatever becomes of the first', async () => {
    const { home, link } = await settled();
    const other = await newHost();
    const replies = await link.exchange([ASK, { name: 'moveTo', address: other.address }]);
    expect(replies).toEqual([
      { name: 'consoleOutput', pending: 0, lines: [] },
      { name: 'moved', error: '' },
    ]);
    const destination = await other.guest;
    expect(await destination.exchange([ASK])).toMatchObject([{ pending: 1 }]);
    await expect(link.exchange([ASK])).rejects.toThrow('the guest is not at this host');
    expect(await destination.exchange([ASK])).toMatchObject([{ pending: 2 }]);
    await destination.close();
    expect(await home.closed).toBeNull();
  });

  test('arrives although its host dies while it is on its way', async () => {
    const { home, link } = await settled();
    const path = `${folder}/${++sockets}.sock`;
    const listener = await listen({ kind: 'unix', path });
    const moved = link.exchange([{ name: 'moveTo', address: `unix:${path}` }]);
    const socket = await listener.accept();
    await Promise.all([listener.close(), link.close(), moved.catch(() => undefined)]);
    const destination = hostLink(socket);
    await hostHello(destination);
    expect(await destination.exchange([ASK])).toMatchObject([{ pending: 0 }]);
    await destination.close();
    expect(await home.closed).toBeNull();
  });

  test.each([
    ['nobody listens', async () => `unix:${folder}/nobody.sock`],
    [
      'who listens goes away without a word',
      async () => {
        const path = `${folder}/${++sockets}.sock`;
        const listener = await listen({ kind: 'unix', path });
        void listener.accept().then((socket) => socket.destroy());
        return `unix:${path}`;
      },
    ],
    [
      'who listens never says hello',
      async () => {
        const path = `${folder}/${++sockets}.sock`;
        const listener = await listen({ kind: 'unix', path });
        void listener.accept().then(() => listener.close());
        return `unix:${path}`;
      },
    ],
    ['it is no address', async () => 'nowhere'],
  ])('stays where it is when %s', async (_what, address) => {
    const { link } = await settled();
    const [moved] = await link.exchange([{ name: 'moveTo', address: await address() }]);
    expect(moved).toMatchObject({ name: 'moved', error: expect.stringMatching(/./) });
    expect(await link.exchange([ASK])).toMatchObject([{ pending: 0 }]);
    await link.close();
  });
});

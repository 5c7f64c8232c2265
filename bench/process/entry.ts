/**
 * The other process of a benchmark. Its first IPC message says which one it is; it says `ready`
 * when it can be measured, answers with what it measured, and ends with its parent.
 */
import { serveBalloonHost } from './balloon-host.ts';
import { serveChannel } from './channel-peer.ts';
import { serveGuestMachine } from './guest-machine.ts';
import type { Start } from './start.ts';

process.once('message', (start: Start) => {
  main(start).catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
});
process.once('disconnect', () => process.exit(0));

function main(start: Start): Promise<void> {
  switch (start.role) {
    case 'channel':
      return serveChannel(start);
    case 'guest':
      return serveGuestMachine(start);
    case 'host':
      return serveBalloonHost(start);
  }
}

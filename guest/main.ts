/** The guest process: told by its first IPC message what machine it is and where its host listens. */
import {
  type Address,
  connect,
  type GuestConfig,
  GuestHome,
  serveGuest,
} from '../protocol/index.ts';
import { BallastError, ExitStatus } from '../shared/index.ts';
import { exitWith, fileSink, onLaboratoryGone } from '../shared/process.ts';
import { readRecording } from '../shared/recording/index.ts';
import { Guest } from './machine/guest.ts';

const CONNECT_TIMEOUT_MS = 10_000;

interface Start {
  readonly connect: Address;
  readonly config: GuestConfig;
}

async function main({ connect: address, config }: Start): Promise<void> {
  const recording = config.recordingPath === null ? null : readRecording(config.recordingPath);
  if (recording && recording.header.frameCount !== config.ramPages) {
    throw new BallastError(
      'BAD_INPUT',
      `${config.recordingPath}: expected a machine of ${recording.header.frameCount} page frames, found ${config.ramPages}`,
    );
  }
  const guest = new Guest(config, recording, fileSink(config.logPath));
  const socket = await connect(address, CONNECT_TIMEOUT_MS);
  const home = new GuestHome((messages) => guest.handle(messages), guest.facts, serveGuest);
  home.enter(socket);
  const error = await home.closed;
  if (error) throw error;
  process.exit(ExitStatus.OK);
}

process.once('message', (start: Start) => {
  main(start).catch((error: unknown) => exitWith('guest', error));
});
process.on('uncaughtException', (error) => exitWith('guest', error));
// The host may still say goodbye; without it there is nothing left to do.
onLaboratoryGone(() => setTimeout(() => process.exit(ExitStatus.OK), 500).unref());
if (!process.send) {
  exitWith(
    'guest',
    new BallastError('BAD_INPUT', 'started alone: expected to be started by `ballast guest`'),
  );
}

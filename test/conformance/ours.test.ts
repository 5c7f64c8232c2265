/** The suite on our own device: another process, over the channel. */
import { afterAll } from 'vitest';
import { killIdleHost } from '../../peers/ballast/host-process.ts';
import { BallastMachine } from '../../peers/ballast/machine.ts';
import { conformanceSuite } from './suite.ts';

afterAll(killIdleHost);

conformanceSuite('ballast', (options) => BallastMachine.start(options));

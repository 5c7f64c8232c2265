/** The suite on our device in the guise of QEMU's: it has to differ from ours where QEMU's does. */
import { afterAll } from 'vitest';
import { killIdleHost } from '../../peers/ballast/host-process.ts';
import { BallastMachine } from '../../peers/ballast/machine.ts';
import { conformanceSuite } from '../conformance/suite.ts';

afterAll(killIdleHost);

conformanceSuite('ballast as qemu-7.2', (options) => BallastMachine.start(options, 'qemu-7.2'));

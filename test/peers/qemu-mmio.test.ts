/** The suite on QEMU's device behind virtio-mmio. */

import { QemuMachine } from '../../peers/qemu/machine.ts';
import { qemuProgram } from '../../peers/qemu/program.ts';
import { conformanceSuite } from '../conformance/suite.ts';

conformanceSuite('qemu virtio-mmio', (options) =>
  QemuMachine.start(qemuProgram(), 'mmio', options),
);

/** The suite on QEMU's device behind virtio-pci. */

import { QemuMachine } from '../../peers/qemu/machine.ts';
import { qemuProgram } from '../../peers/qemu/program.ts';
import { conformanceSuite } from '../conformance/suite.ts';

conformanceSuite('qemu virtio-pci', (options) => QemuMachine.start(qemuProgram(), 'pci', options));

import { expect, test } from 'vitest';
import { hypervisorOf } from '../../../protocol/index.ts';

test.each([
  ['QEMU 7.2.22 (Debian 12), TCG, virtio-balloon-pci', 'qemu-7.2-tcg'],
  ['QEMU 10.0.13 (Debian 13), TCG thread=multi, virtio-balloon-pci', 'qemu-10-tcg'],
  ['QEMU 11.1.3, KVM', 'qemu-10-kvm'],
  ['QEMU 7.2, KVM with a dirty ring', 'qemu-7.2-kvm'],
  ['Firecracker 1.16', null],
  ['QEMU', null],
])('the profile of "%s" is %s', (description, name) => {
  expect(hypervisorOf(description)).toBe(name);
});

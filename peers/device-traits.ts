/**
 * Where devices differ and may: the conformance suite asks here and nowhere else, so that every
 * difference between two devices is one row with its reason.
 */

/** Devices under test: ours, and QEMU's behind each of its transports. */
export const TESTED_DEVICES = ['ballast', 'qemu-mmio', 'qemu-pci'] as const;
export type TestedDevice = (typeof TESTED_DEVICES)[number];

interface Trait<T extends string | number | boolean> {
  /** What it says of a device. */
  readonly about: string;
  readonly values: Readonly<Record<TestedDevice, T>>;
  /** Why the difference is allowed. */
  readonly reason: string;
  /** Where it is written. */
  readonly source: string;
}

function trait<T extends string | number | boolean>(
  ballast: T,
  qemu: T | { readonly mmio: T; readonly pci: T },
  about: string,
  reason: string,
  source: string,
): Trait<T> {
  const both = typeof qemu === 'object' ? qemu : { mmio: qemu, pci: qemu };
  const values = { ballast, 'qemu-mmio': both.mmio, 'qemu-pci': both.pci };
  return { about, values, reason, source };
}

const QEMU_BALLOON = 'qemu hw/virtio/virtio-balloon.c';

export const TRAITS = {
  inflateQueueMax: trait<number>(
    128,
    { mmio: 1024, pci: 128 },
    'QueueSizeMax of inflateq',
    'virtio-mmio of QEMU tells VIRTQUEUE_MAX_SIZE for each queue, whatever the device asked for',
    'qemu hw/virtio/virtio-mmio.c',
  ),
} as const;

export type TraitName = keyof typeof TRAITS;

export interface DeviceTraits {
  readonly name: TestedDevice;
  /** What the device does; noted as used. */
  get<N extends TraitName>(name: N): (typeof TRAITS)[N]['values'][TestedDevice];
}

/** Names that any test of this process has asked for. */
export const usedTraits = new Set<TraitName>();

export function traitsOf(name: TestedDevice): DeviceTraits {
  return {
    name,
    get(trait) {
      usedTraits.add(trait);
      return TRAITS[trait].values[name];
    },
  };
}

export const SOURCES = { QEMU_BALLOON };

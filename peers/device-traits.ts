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

const BALLOON_C = 'qemu hw/virtio/virtio-balloon.c';
const VIRTIO_C = 'qemu hw/virtio/virtio.c';

export const TRAITS = {
  inflateQueueMax: trait<number>(
    128,
    { mmio: 1024, pci: 128 },
    'QueueSizeMax of inflateq',
    'virtio-mmio of QEMU tells VIRTQUEUE_MAX_SIZE for each queue, whatever the device asked for',
    'qemu hw/virtio/virtio-mmio.c',
  ),
  unofferedFeaturesKeepFeaturesOk: trait<boolean>(
    false,
    true,
    'FEATURES_OK stays although the driver accepted bits that were not offered',
    'QEMU drops such bits; §2.2.2 wants the device to refuse them',
    VIRTIO_C,
  ),
  missingVersion1KeepsFeaturesOk: trait<boolean>(
    false,
    true,
    'FEATURES_OK stays although the driver did not accept VERSION_1',
    'QEMU leaves it to the transport; §6.2 lets the device refuse such a driver',
    VIRTIO_C,
  ),
  strayPfnBytesIgnored: trait<boolean>(
    false,
    true,
    'The whole PFNs of a buffer count though its length is no multiple of 4',
    'QEMU reads PFN by PFN; ours takes a malformed buffer for none',
    BALLOON_C,
  ),
  mixedPfnBufferRead: trait<boolean>(
    false,
    true,
    'PFNs count though a device-writable piece follows them',
    'QEMU looks at the readable part alone; in ours a buffer on the wrong queue has no effect',
    BALLOON_C,
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

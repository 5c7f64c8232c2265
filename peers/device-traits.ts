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
const MMIO_C = 'qemu hw/virtio/virtio-mmio.c';
const RAM_C = 'qemu migration/ram.c';
const VIRTIO_C = 'qemu hw/virtio/virtio.c';

export const TRAITS = {
  inflateQueueMax: trait<number>(
    128,
    { mmio: 1024, pci: 128 },
    'Largest size of inflateq, deflateq and statsq',
    "QEMU's virtio-mmio tells the largest size that there is for every queue, whatever the device asked for",
    MMIO_C,
  ),
  reportingQueueMax: trait<number>(
    32,
    { mmio: 1024, pci: 32 },
    'Largest size of reporting_vq',
    'As inflateQueueMax',
    MMIO_C,
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
  sameTargetIsTold: trait<boolean>(
    false,
    true,
    'The driver is notified of a target that is what it was',
    'A notification says that something changed; drivers look and find nothing to do',
    BALLOON_C,
  ),
  actualMayExceedMemory: trait<boolean>(
    false,
    true,
    '`actual` is taken though guest memory is smaller',
    "The field is the driver's own word; QEMU then reports a negative rest",
    BALLOON_C,
  ),
  absentConfigReadsOnes: trait<boolean>(
    false,
    true,
    'A field that the device does not have reads as all ones',
    'QEMU answers reads beyond the space as a bus would; over the channel such a read is refused',
    VIRTIO_C,
  ),
  poisonReturnsAfterReset: trait<boolean>(
    false,
    true,
    'After a reset, the next write to any field brings the old poison_val back',
    'QEMU keeps a copy of the space as it was written, and reads all of it at each write',
    BALLOON_C,
  ),
  poisonWritableAnyTime: trait<boolean>(
    false,
    true,
    'poison_val can be changed after DRIVER_OK',
    'A driver has to write it before (§5.5.6.6); what the device does with a later one is its own',
    BALLOON_C,
  ),
  unmappedSegmentBreaks: trait<boolean>(
    false,
    true,
    'A writable segment outside guest memory sets DEVICE_NEEDS_RESET',
    'QEMU maps a buffer before it looks at it; ours passes over the range and acknowledges',
    VIRTIO_C,
  ),
  queueResetWorks: trait<boolean>(
    true,
    { mmio: false, pci: true },
    'A queue can be reset on its own once RING_RESET was negotiated',
    "QEMU's device offers the feature behind every transport, but its virtio-mmio has no QueueReset",
    MMIO_C,
  ),
  runawayIndexBreaks: trait<boolean>(
    true,
    false,
    'An available index that is further ahead than the ring is long sets DEVICE_NEEDS_RESET',
    'QEMU 7.2 compares the index only where it counts bytes, which a balloon never does, and serves stale entries',
    VIRTIO_C,
  ),
  unalignedHintKeepsOut: trait<'nothing' | 'page 1' | 'pages 0 and 1'>(
    'nothing',
    'page 1',
    'What a hint from the middle of page 0 to the end of page 2 keeps out of the stream',
    'QEMU divides address and length, and marks the first page dirty again when it gives the buffer back; ours takes whole pages only',
    RAM_C,
  ),
  hintClippedToMemory: trait<boolean>(
    false,
    true,
    'A hint across the end of memory counts for what lies inside',
    'QEMU cuts it at the end of the block; ours passes over what it cannot take whole',
    RAM_C,
  ),
  longHintCommandAccepted: trait<boolean>(
    false,
    true,
    'An id may be followed by other bytes',
    'QEMU asks for at least four bytes, the specification for exactly four (§5.5.6.5.1)',
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

type TraitValues = { readonly [N in TraitName]: (typeof TRAITS)[N]['values'][TestedDevice] };

/** Where our device in the guise of QEMU's (profile qemu-7.2) is still not like it. */
const GUISE_GAPS: Partial<TraitValues> = {
  // Rings are read in the guest's process, for every device alike.
  runawayIndexBreaks: true,
  sameTargetIsTold: false,
  mixedPfnBufferRead: false,
  unalignedHintKeepsOut: 'pages 0 and 1',
};

/** Our device as qemu-7.2. */
export function guiseTraits(): DeviceTraits {
  const qemu = traitsOf('qemu-pci');
  return {
    name: 'ballast',
    get: (trait) => {
      const value = qemu.get(trait);
      return (GUISE_GAPS as Readonly<Record<string, typeof value>>)[trait] ?? value;
    },
  };
}

/** The table of docs/peers.md. */
export function traitsMarkdown(): string {
  const rows = Object.entries(TRAITS).map(([name, { about, values, reason, source }]) => {
    const cells = TESTED_DEVICES.map((device) => `${values[device]}`);
    return `| \`${name}\` | ${about} | ${cells.join(' | ')} | ${reason} | ${source} |`;
  });
  const head = ['trait', 'what it says', ...TESTED_DEVICES, 'why it is allowed', 'source'];
  return [`| ${head.join(' | ')} |`, `|${'---|'.repeat(head.length)}`, ...rows].join('\n');
}

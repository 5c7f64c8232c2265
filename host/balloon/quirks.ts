/**
 * The quirks of real devices: what each one does, whose it is, and where that can be read. The code
 * that a quirk changes asks for it by name; profiles.ts says which device has which.
 */
import type { DeviceQuirk } from '../../protocol/index.ts';

export interface QuirkFacts {
  readonly what: string;
  readonly source: string;
}

const QEMU_DEVICE = 'qemu/qemu hw/virtio/virtio-balloon.c @ d1c81c34';
const QEMU_SEEN = 'seen on QEMU 7.2.22 over qtest';
const FIRECRACKER = 'firecracker src/vmm/src/devices/virtio/balloon/ @ 81b38b9d';
const CLOUD_HYPERVISOR = 'cloud-hypervisor virtio-devices/src/balloon.rs @ ae44c297';
const CROSVM = 'crosvm devices/src/virtio/balloon.rs @ f1e797a6';
const V86 = 'v86 src/virtio_balloon.js @ 71a97849';

export const QUIRKS: Readonly<Record<DeviceQuirk, QuirkFacts>> = {
  'start-reads-as-stop': {
    what: 'While a round is open free_page_hint_cmd_id reads 0, which is STOP: any other configuration change ends the round early.',
    source: `${QEMU_DEVICE}, virtio_balloon_get_config`,
  },
  'unoffered-features-accepted': {
    what: 'FEATURES_OK is granted although the driver wrote bits that were not offered, or left out VERSION_1; unoffered bits are dropped.',
    source: QEMU_SEEN,
  },
  'absent-config-reads-ones': {
    what: 'A configuration field that the device does not have reads as all ones.',
    source: QEMU_SEEN,
  },
  'actual-unchecked': {
    what: '`actual` may be more than guest memory: what is left to the guest then is negative.',
    source: QEMU_SEEN,
  },
  'actual-counted-by-host': {
    what: 'The host counts PFNs and ignores what the driver writes to `actual`.',
    source: V86,
  },
  'state-zeroed-by-reset': {
    what: 'A reset forgets `actual`, the statistics and the command ids; elsewhere they survive.',
    source: FIRECRACKER,
  },
  'poison-returns-after-reset': {
    what: 'A reset clears poison_val, but the next write to any configuration field brings back what was written before it.',
    source: QEMU_SEEN,
  },
  'poison-writable-any-time': {
    what: 'poison_val may be changed after DRIVER_OK.',
    source: `${QEMU_DEVICE}, virtio_balloon_set_config`,
  },
  'stray-pfn-bytes-ignored': {
    what: 'The whole PFNs of a buffer count, and up to three bytes behind them do not.',
    source: `${QEMU_DEVICE}, virtio_balloon_handle_output`,
  },
  'pfns-over-256-ignored': {
    what: 'A buffer of more than 256 PFNs is acknowledged without effect.',
    source: `${CLOUD_HYPERVISOR}, pull request 8177`,
  },
  'pfns-over-256-never-returned': {
    what: 'A buffer of more than 256 PFNs is skipped and never given back: the driver waits for ever.',
    source: `${FIRECRACKER}, process_inflate`,
  },
  'inflate-keeps-content': {
    what: 'Inflated pages are counted and keep their content: no memory is given back.',
    source: V86,
  },
  'long-hint-command-accepted': {
    what: 'A command buffer may be longer than four bytes; the first four are the id.',
    source: QEMU_SEEN,
  },
  'four-bytes-are-a-command': {
    what: 'A buffer of four bytes is a command even if it is writable, and a readable one of another length is none. What a writable buffer holds is not known here: it names no round.',
    source: FIRECRACKER,
  },
  'hint-ids-compared': {
    what: 'A block counts whenever the id that the driver sent last is the current one: a driver may leave its round and come back.',
    source: FIRECRACKER,
  },
  'done-at-guest-stop': {
    what: 'The STOP of the driver ends a round with DONE; every STOP is answered with a configuration interrupt, whether or not anything has changed.',
    source: V86,
  },
  'hints-in-any-state': {
    what: 'Blocks count whenever they come, in a round or not, under whatever id.',
    source: V86,
  },
  'hint-start-rounds-down': {
    what: 'A block that is not made of whole pages counts for as many pages as it has whole ones, from the page of its first byte on.',
    source: 'qemu/qemu migration/ram.c @ 033be66d, qemu_guest_free_page_hint',
  },
  'hint-clipped-to-ram': {
    what: 'A block across the end of guest memory counts for what lies inside.',
    source: QEMU_SEEN,
  },
  'unmapped-segment-breaks': {
    what: 'A writable segment with more than a page outside guest memory sets DEVICE_NEEDS_RESET, and its chain is never given back.',
    source: QEMU_SEEN,
  },
  'report-clipped-to-ram': {
    what: 'A reported range across the end of guest memory counts for what lies inside.',
    source: CLOUD_HYPERVISOR,
  },
  'report-used-length-total': {
    what: 'The used length of a report is the length of its ranges, although nothing was written.',
    source: CLOUD_HYPERVISOR,
  },
  'unreported-stats-kept': {
    what: 'A statistic that is missing in a report keeps its former value; elsewhere it is unknown again.',
    source: FIRECRACKER,
  },
  'stats-over-256-ignored': {
    what: 'A report of more than 256 statistics is not read; its buffer is kept for the next question.',
    source: `${FIRECRACKER}, since 1.16`,
  },
  'unknown-stats-as-undefined': {
    what: 'A statistic with an unknown tag appears under the name "undefined".',
    source: V86,
  },
  'stats-polling-fixed-at-boot': {
    what: 'Polling of statistics that was off when the guest booted cannot be turned on, nor the other way round.',
    source: FIRECRACKER,
  },
};

/** Sources of what a profile says besides its quirks. */
export const PROFILE_SOURCES = {
  qemu: QEMU_DEVICE,
  firecracker: FIRECRACKER,
  cloudHypervisor: CLOUD_HYPERVISOR,
  crosvm: CROSVM,
  v86: V86,
} as const;

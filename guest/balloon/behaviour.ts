/**
 * What sets one operating system's balloon driver apart from another's, as data. Sources: Linux
 * drivers/virtio/virtio_balloon.c (4.20 and later), virtio-win Balloon/sys/{balloon,Device}.c and
 * Balloon/app/memstat.cpp, FreeBSD sys/dev/virtio/balloon/virtio_balloon.c.
 */
import {
  BalloonFeature,
  BalloonStatTag,
  type DriverBehaviourName,
  Feature,
  type FeatureSet,
  featureMask,
  VIRTIO_BALLOON_PFNS_MAX,
} from '../../protocol/index.ts';
import { type Nanoseconds, NS_PER_MS, NS_PER_S } from '../../shared/index.ts';
import { RING_FEATURES } from '../virtio/ring-features.ts';

export interface DriverBehaviour {
  readonly name: DriverBehaviourName;
  /** Features that the driver knows. */
  readonly features: FeatureSet;
  /** PFNs of one inflate request; of a deflate request, too, unless it is `wholeRequests`. */
  readonly pfnsMax: number;
  /** An inflate request is allocated as a whole, and not at all while memory is low. */
  readonly allOrNothing: boolean;
  /** A deflate request takes back one inflate request, however little is asked for. */
  readonly wholeRequests: boolean;
  /** Which pages leave the balloon first: the last that came in, or the oldest. */
  readonly leaves: 'newest' | 'oldest';
  /** Deflated pages are free before the host has been told of them. */
  readonly freesBeforeTelling: boolean;
  /** How long it waits until the host has acknowledged a request; null: for ever. */
  readonly ackTimeoutNs: Nanoseconds | null;
  /** Sleep after a failed allocation, with what there is in the balloon not told yet. */
  readonly outOfPuffNs: Nanoseconds;
  /** When the next pass begins after one that has got too few pages. */
  readonly retryNs: Nanoseconds;
  /** A pass follows each interrupt, and nothing else: a failed one is repeated only by chance. */
  readonly onePassPerInterrupt: boolean;
  /** CONFIG_BALLOON_COMPACTION is something that the driver could have. */
  readonly canMovePages: boolean;
  /** What happens to the balloon when the system is suspended; null: it cannot be. */
  readonly suspend: 'deflate' | 'keep' | null;
  /** The driver writes `actual` when it has emptied the balloon for good. */
  readonly writesActualAtRemove: boolean;
  /** Statistics, in the order in which they are sent. */
  readonly statistics: readonly BalloonStatTag[];
}

const LINUX: DriverBehaviour = {
  name: 'linux',
  features:
    RING_FEATURES |
    featureMask(
      Feature.VERSION_1,
      BalloonFeature.MUST_TELL_HOST,
      BalloonFeature.STATS_VQ,
      BalloonFeature.DEFLATE_ON_OOM,
      BalloonFeature.FREE_PAGE_HINT,
      BalloonFeature.PAGE_POISON,
      BalloonFeature.PAGE_REPORTING,
      BalloonFeature.HINT_WAIT_ON_ACK,
    ),
  pfnsMax: VIRTIO_BALLOON_PFNS_MAX,
  allOrNothing: false,
  wholeRequests: false,
  leaves: 'newest',
  freesBeforeTelling: false,
  ackTimeoutNs: null,
  outOfPuffNs: 200 * NS_PER_MS,
  retryNs: 0,
  onePassPerInterrupt: false,
  canMovePages: true,
  suspend: 'deflate',
  writesActualAtRemove: true,
  // Without those of hugetlbfs, which the emulated kernel does not have.
  statistics: [
    BalloonStatTag.SWAP_IN,
    BalloonStatTag.SWAP_OUT,
    BalloonStatTag.MAJFLT,
    BalloonStatTag.MINFLT,
    BalloonStatTag.OOM_KILL,
    BalloonStatTag.ALLOC_STALL,
    BalloonStatTag.ASYNC_SCAN,
    BalloonStatTag.DIRECT_SCAN,
    BalloonStatTag.ASYNC_RECLAIM,
    BalloonStatTag.DIRECT_RECLAIM,
    BalloonStatTag.MEMFREE,
    BalloonStatTag.MEMTOT,
    BalloonStatTag.AVAIL,
    BalloonStatTag.CACHES,
  ],
};

/** One MDL is PAGE_SIZE / sizeof(PFN_NUMBER) pages on 64-bit Windows. */
const PAGES_PER_MDL = 512;

const WINDOWS: DriverBehaviour = {
  name: 'windows',
  // BalloonInit asks for the statistics queue alone, and so not for MUST_TELL_HOST.
  features: featureMask(Feature.VERSION_1, BalloonFeature.STATS_VQ),
  pfnsMax: PAGES_PER_MDL,
  // BalloonFill gives up an MDL that is shorter than it asked for, and asks IsLowMemory first.
  allOrNothing: true,
  // BalloonLeak pops one MDL and ignores how many pages it was called for.
  wholeRequests: true,
  leaves: 'newest',
  // MmFreePagesFromMdl comes before BalloonTellHost.
  freesBeforeTelling: true,
  // KeWaitForSingleObject in BalloonTellHost; a timeout is traced and nothing more.
  ackTimeoutNs: NS_PER_S,
  outOfPuffNs: 0,
  retryNs: 0,
  // BalloonRoutine does one pass each time that BalloonInterruptDpc has set WakeUpThread.
  onePassPerInterrupt: true,
  canMovePages: false,
  // BalloonEvtDeviceD0ExitPreInterruptsDisabled leaks only on the way to D3Final.
  suspend: 'keep',
  writesActualAtRemove: true,
  // CMemStat::Update, the service's; Windows has no hugetlbfs, which counts as 0.
  statistics: [
    BalloonStatTag.SWAP_IN,
    BalloonStatTag.SWAP_OUT,
    BalloonStatTag.MAJFLT,
    BalloonStatTag.MINFLT,
    BalloonStatTag.MEMFREE,
    BalloonStatTag.MEMTOT,
    BalloonStatTag.AVAIL,
    BalloonStatTag.CACHES,
    BalloonStatTag.HTLB_PGALLOC,
    BalloonStatTag.HTLB_PGFAIL,
  ],
};

const FREEBSD: DriverBehaviour = {
  name: 'freebsd',
  // VTBALLOON_FEATURES
  features: featureMask(Feature.VERSION_1, BalloonFeature.MUST_TELL_HOST),
  // VTBALLOON_PAGES_PER_REQUEST
  pfnsMax: 256,
  allOrNothing: false,
  wholeRequests: false,
  // vtballoon_inflate appends to a queue, vtballoon_deflate takes its first.
  leaves: 'oldest',
  freesBeforeTelling: false,
  ackTimeoutNs: null,
  outOfPuffNs: 0,
  // VTBALLOON_LOWMEM_TIMEOUT
  retryNs: NS_PER_S,
  onePassPerInterrupt: false,
  canMovePages: false,
  suspend: null,
  // vtballoon_detach empties the balloon without vtballoon_update_size.
  writesActualAtRemove: false,
  statistics: [],
};

export const DRIVER_BEHAVIOURS: Readonly<Record<DriverBehaviourName, DriverBehaviour>> = {
  linux: LINUX,
  windows: WINDOWS,
  freebsd: FREEBSD,
};

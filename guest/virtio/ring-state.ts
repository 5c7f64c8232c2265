/** What of a device's hand on a ring moves to another host with the guest. */
import { MAX_QUEUE_SIZE } from '../../protocol/index.ts';

/** A chain that the device holds. */
export interface HeldChain {
  /** As `avail` and `used` messages name it. */
  readonly head: number;
  /** As the driver names it. */
  readonly id: number;
  /** Descriptors that it has in the ring. */
  readonly descs: number;
}

/** What the device's hand knows of a ring besides what lies in guest memory: it migrates. */
export interface RingState {
  /** Next chain to take and next used entry to write; of a packed ring with the wrap counter in bit 15. */
  readonly availIndex: number;
  readonly usedIndex: number;
  /** In the order in which they became available, if IN_ORDER is negotiated. */
  readonly held: readonly HeldChain[];
}

/** Whether what came from elsewhere has the shape of a state; a ring checks that it makes sense. */
export function isRingState(state: unknown): state is RingState {
  if (!isRecord(state) || !isU16(state['availIndex']) || !isU16(state['usedIndex'])) return false;
  const held = state['held'];
  if (!Array.isArray(held) || held.length > MAX_QUEUE_SIZE) return false;
  return held.every(
    (chain) =>
      isRecord(chain) && isU16(chain['head']) && isU16(chain['id']) && isU16(chain['descs']),
  );
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}

function isU16(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 0xffff;
}

/** The guest's end of the balloon benchmarks: the real guest, without a recording. */
import { Guest } from '../../guest/machine/guest.ts';
import { Gfp, type PageAllocator } from '../../guest/mm/index.ts';
import {
  connect,
  DEFAULT_KERNEL_OPTIONS,
  type GuestConfig,
  serveGuest,
} from '../../protocol/index.ts';
import { assert, DEFAULT_COSTS } from '../../shared/index.ts';
import type { Start } from './start.ts';

const CONNECT_TIMEOUT_MS = 10_000;

/** The guest process as it is, with a machine that has no recording. */
export async function serveGuestMachine(start: Start & { role: 'guest' }): Promise<void> {
  const guest = new Guest(guestConfigOf(start.ramPages), null);
  if (start.fragmented) fragment(guest.system.mm, start.ramPages);
  const socket = await connect(start.address, CONNECT_TIMEOUT_MS);
  serveGuest(socket, (messages) => guest.handle(messages), guest.facts);
}

export function guestConfigOf(ramPages: number): GuestConfig {
  return {
    seed: 1,
    ramPages,
    vcpus: 1,
    mm: { initOnAlloc: true, initOnFree: false, pagePoison: false },
    kernel: DEFAULT_KERNEL_OPTIONS,
    strategy: 'iterate',
    iterate: { budgetNodes: 1000, minOrder: 0 },
    recordingPath: null,
    costs: DEFAULT_COSTS,
    auditEveryEvents: 0,
    logPath: null,
  };
}

/** Takes all there is in pages, and gives every other frame back. */
function fragment(mm: PageAllocator, ramPages: number): void {
  const taken = new Uint8Array(ramPages);
  for (;;) {
    const pfn = mm.alloc(0, Gfp.GFP_HIGHUSER_MOVABLE);
    if (pfn < 0) break;
    taken[pfn] = 1;
  }
  for (let pfn = 0; pfn < ramPages; pfn += 2) if (taken[pfn] === 1) mm.free(pfn, 0);
  assert(mm.freePages() > ramPages / 4, 'a fragmented guest has free memory');
}

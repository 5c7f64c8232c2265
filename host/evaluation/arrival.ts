/**
 * Looks at a guest that has just arrived at its destination, before it runs on: its memory is still
 * the source's then, and what the destination holds is compared with it, page by page. Who relies on
 * a page is the guest's word (`getReliance`).
 */
import { type ArrivalReport, type LostPage, toUint32 } from '../../protocol/index.ts';
import { BallastError, type Bitmap, type Pfn } from '../../shared/index.ts';
import { ramBitmap } from '../memory/ram-bitmap.ts';
import { TAG_RECORD_BYTES } from '../memory/records.ts';
import type { DestinationMemory } from '../migration/destination-memory.ts';
import { clairvoyantBytes } from '../migration/wire-sizes.ts';
import type { Vmm } from '../vmm.ts';

/** Pages whose history is told: more than anybody reads; all are counted. */
const LOST_TOLD_MAX = 1024;
/** Pages whose records are compared at once. */
const VERIFY_CHUNK_PAGES = 1 << 16;

/** @throws BallastError MESSAGE_INVALID when the guest's answers have another length. */
export async function verifyArrival(vmm: Vmm, memory: DestinationMemory): Promise<ArrivalReport> {
  const reliance = await vmm.request({ name: 'getReliance' }, 'reliance');
  const { ram, ramPages } = vmm.options;
  const contents = ramBitmap(reliance.contents, ramPages);
  // Nobody relies on what is in a hole.
  contents.and(ram);
  const freed = reliance.freed.length > 0 ? ramBitmap(reliance.freed, ramPages) : null;
  const { found: lost, contentPages } = await differing(vmm, memory, contents);
  const broken = freed ? await brokenPages(vmm, memory, freed, reliance.freed_tag) : [];
  const all = merged(lost, await erasedPages(vmm));
  const freedContentPages = freed && reliance.freed_tag !== 0 ? freed.count() : 0;
  const isBroken = new Set(broken);
  const told = [...all, ...broken].slice(0, LOST_TOLD_MAX);
  return {
    memory: {
      lost_pages: all.length,
      broken_free_pages: broken.length,
      undefined_pages: reliance.undefined_pages,
    },
    limit_bytes: clairvoyantBytes(contentPages + freedContentPages),
    lost: await histories(vmm, told, (pfn) => {
      const received = memory.backed.get(pfn) ? '' : ', no content was received for it';
      const expected = isBroken.has(pfn)
        ? `, free, and the next allocation expects ${tagText(reliance.freed_tag)}`
        : '';
      return [`destination: content tag ${tagText(memory.tagOf(pfn))}${received}${expected}`];
    }),
  };
}

/** Of a guest that stays where it is: what discards took from it. */
export async function verifyStay(vmm: Vmm): Promise<ArrivalReport> {
  const lost = await erasedPages(vmm);
  return {
    memory: { lost_pages: lost.length, broken_free_pages: 0, undefined_pages: 0 },
    limit_bytes: null,
    lost: await histories(vmm, lost.slice(0, LOST_TOLD_MAX), () => []),
  };
}

/** Of `set`: pages whose content at the destination is another than the guest's, ascending; those with any. */
async function differing(
  vmm: Vmm,
  memory: DestinationMemory,
  set: Bitmap,
): Promise<{ readonly found: Pfn[]; readonly contentPages: number }> {
  const found: Pfn[] = [];
  let contentPages = 0;
  for (const ranges of chunksOf(set, vmm.records.recordSizeBytes)) {
    const source = await vmm.readRecords(ranges);
    let at = 0;
    for (let i = 0; i < ranges.length; i += 2) {
      for (let pfn = ranges[i]!; pfn < ranges[i]! + ranges[i + 1]!; pfn++) {
        const tag = source[at++]!;
        if (!set.get(pfn)) continue;
        if (tag !== 0) contentPages++;
        if (tag !== memory.tagOf(pfn)) found.push(pfn);
      }
    }
  }
  return { found, contentPages };
}

/** Of whole pages the record is not known beforehand: it is what the guest's own page holds. */
async function brokenPages(
  vmm: Vmm,
  memory: DestinationMemory,
  freed: Bitmap,
  expectedTag: number,
): Promise<Pfn[]> {
  if (memory.recordSizeBytes !== TAG_RECORD_BYTES) {
    return (await differing(vmm, memory, freed)).found;
  }
  const broken: Pfn[] = [];
  for (let pfn = freed.nextSet(0); pfn >= 0; pfn = freed.nextSet(pfn + 1)) {
    if (memory.tagOf(pfn) !== expectedTag) broken.push(pfn);
  }
  return broken;
}

/** Ranges to read: tags of everything, since that is cheaper than choosing; whole pages as needed. */
function* chunksOf(set: Bitmap, recordSizeBytes: number): Generator<Uint32Array> {
  if (recordSizeBytes === TAG_RECORD_BYTES) {
    for (let first = 0; first < set.bitCount; first += VERIFY_CHUNK_PAGES) {
      yield Uint32Array.of(first, Math.min(VERIFY_CHUNK_PAGES, set.bitCount - first));
    }
    return;
  }
  for (let first = set.nextSet(0); first >= 0; ) {
    const end = set.nextClear(first);
    const count = (end < 0 ? set.bitCount : end) - first;
    yield Uint32Array.of(first, count);
    first = set.nextSet(first + count);
  }
}

/** What discarding hints took from the guest: lost on both sides, so no comparison finds it. */
async function erasedPages(vmm: Vmm): Promise<Pfn[]> {
  const { pfns } = await vmm.request({ name: 'getErased' }, 'erased');
  const erased = toUint32(pfns);
  if (!erased?.every((pfn) => pfn < vmm.options.ramPages)) {
    throw new BallastError('MESSAGE_INVALID', 'erased: expected frames of the guest');
  }
  return [...erased];
}

/** What the guest knows of each page, and what else there is to say of it. */
async function histories(
  vmm: Vmm,
  pfns: readonly Pfn[],
  more: (pfn: Pfn) => readonly string[],
): Promise<LostPage[]> {
  const told: LostPage[] = [];
  for (const pfn of pfns) {
    const { lines } = await vmm.request({ name: 'getHistory', pfn }, 'history');
    told.push({ pfn, history: [...lines, ...more(pfn)] });
  }
  return told;
}

function tagText(tag: number): string {
  return tag.toString(16).padStart(8, '0');
}

/** The members of either list, ascending. */
function merged(one: readonly Pfn[], other: readonly Pfn[]): Pfn[] {
  return [...new Set([...one, ...other])].sort((a, b) => a - b);
}

/** The page allocator's cost an operation, beside a bare buddy allocator in C, and its metadata. */
import { Gfp, METADATA_BYTES_PER_PAGE, PageAllocator } from '../guest/mm/index.ts';
import { assert, Bitmap, Prng } from '../shared/index.ts';
import { type Bench, type Figure, sample } from './figure.ts';
import { runReference } from './reference/c.ts';

/** 4 GiB. */
const RAM_PAGES = 1 << 20;
/** Pages at work in the sequential and the random pattern. */
const WORKING_SET = 1 << 18;
const PAIRS = 1_000_000;
const GFP = Gfp.GFP_HIGHUSER_MOVABLE;

export const benchAllocator: Bench = async ({ runs, cReference, progress }) => {
  const mm = freshAllocator();
  const frames = new Int32Array(WORKING_SET);
  const patterns = {
    pair0: { name: 'order 0, allocated and freed at once', run: () => pairs(mm, 0) },
    pair10: { name: 'order 10, allocated and freed at once', run: () => pairs(mm, 10) },
    sequential: {
      name: 'order 0, all allocated, then all freed in order',
      run: () => workingSet(mm, frames, false),
    },
    random: {
      name: 'order 0, all allocated, then all freed at random',
      run: () => workingSet(mm, frames, true),
    },
  } as const;
  const figures: Figure[] = [];
  for (const [key, { name, run }] of Object.entries(patterns)) {
    progress(name);
    const { ours, c } = await sample(runs, {
      ours: run,
      c: () => (cReference ? runReference(cReference, 'buddy', key, RAM_PAGES) : Number.NaN),
    });
    figures.push({
      bench: 'allocator',
      name: `${name}, per operation`,
      unit: 'ns',
      samples: ours,
      ...(cReference ? { reference: { name: 'C', samples: c } } : {}),
    });
  }
  figures.push({
    bench: 'allocator',
    name: 'page: metadata',
    unit: 'bytes',
    samples: [METADATA_BYTES_PER_PAGE],
    target: { of: 'value', atMost: 24 },
  });
  return figures;
};

function freshAllocator(): PageAllocator {
  const mm = new PageAllocator(
    {
      ramPages: RAM_PAGES,
      vcpus: 1,
      mm: { initOnAlloc: false, initOnFree: false, pagePoison: false },
    },
    { clearPages() {} },
  );
  const free = new Bitmap(RAM_PAGES);
  free.setAll();
  mm.adoptFreeSet(free);
  return mm;
}

function pairs(mm: PageAllocator, order: number): number {
  const start = performance.now();
  for (let i = 0; i < PAIRS; i++) mm.free(mm.alloc(order, GFP), order);
  return perOperation(start, 2 * PAIRS);
}

function workingSet(mm: PageAllocator, frames: Int32Array, shuffled: boolean): number {
  const start = performance.now();
  for (let i = 0; i < frames.length; i++) frames[i] = mm.alloc(0, GFP);
  const allocated = performance.now();
  assert(frames.at(-1)! >= 0, 'the working set fits');
  if (shuffled) shuffle(frames);
  const pause = performance.now() - allocated;
  for (let i = 0; i < frames.length; i++) mm.free(frames[i]!, 0);
  return perOperation(start + pause, 2 * frames.length);
}

function perOperation(startMs: number, operations: number): number {
  return ((performance.now() - startMs) * 1e6) / operations;
}

function shuffle(frames: Int32Array): void {
  const prng = new Prng(1);
  for (let i = frames.length - 1; i > 0; i--) {
    const j = prng.below(i + 1);
    const frame = frames[i]!;
    frames[i] = frames[j]!;
    frames[j] = frame;
  }
}

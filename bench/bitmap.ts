/** Bitmap kernels over the dirty bitmap of a large guest, beside C and WebAssembly. */
import { assert, Bitmap, Prng } from '../shared/index.ts';
import { type Bench, type Figure, sample } from './figure.ts';
import { runReference } from './reference/c.ts';
import { instantiateKernels, type KernelName, type WasmKernels } from './reference/wasm.ts';

/** 128 GiB of guest: 4 MiB of bitmap. */
const BITS = 1 << 25;
const WORDS = BITS >>> 5;

const NAMES: Readonly<Record<KernelName, string>> = {
  popcount: 'count',
  andnot: 'countAndNot',
  or: 'or, counting what became set',
  scan: 'nextSet over one bit in 1024',
};

export const benchBitmap: Bench = async ({ runs, cReference, progress }) => {
  const wasm = instantiateKernels(2 * WORDS * 4);
  const figures: Figure[] = [];
  for (const kernel of Object.keys(NAMES) as KernelName[]) {
    progress(NAMES[kernel]);
    const { a, b } = inputOf(kernel);
    assert(runPlain(kernel, a.clone(), b) === runWasm(wasm, kernel, a, b).result, 'both agree');
    const { plain, webassembly, c } = await sample(runs, {
      plain: () =>
        timed(
          () => runPlain(kernel, a, b),
          () => a.words.set(inputWords(kernel)),
        ),
      webassembly: () => runWasm(wasm, kernel, a, b).us,
      c: () => (cReference ? runReference(cReference, 'bitmap', kernel, WORDS) / 1e3 : Number.NaN),
    });
    const name = `${NAMES[kernel]}, 2^25 bits`;
    const inWasm = { name: 'WebAssembly', samples: webassembly };
    const inC = { name: 'C', samples: c };
    const base = { bench: 'bitmap', name, unit: 'µs', samples: plain } as const;
    if (cReference) figures.push({ ...base, reference: inC, target: { of: 'ratio', atMost: 4 } });
    figures.push({ ...base, reference: inWasm });
  }
  return figures;
};

function inputOf(kernel: KernelName): { a: Bitmap; b: Bitmap } {
  const b = new Bitmap(
    BITS,
    inputWords('popcount').map((word) => Math.imul(word, 0x9e3779b1)),
  );
  return { a: new Bitmap(BITS, inputWords(kernel)), b };
}

function inputWords(kernel: KernelName): Int32Array {
  const prng = new Prng(7);
  const words = new Int32Array(WORDS);
  if (kernel === 'scan') for (let i = 0; i < WORDS; i += 32) words[i] = 1 << prng.below(32);
  else for (let i = 0; i < WORDS; i++) words[i] = prng.below(2 ** 32) | 0;
  return words;
}

function runPlain(kernel: KernelName, a: Bitmap, b: Bitmap): number {
  switch (kernel) {
    case 'popcount':
      return a.count();
    case 'andnot':
      return a.countAndNot(b);
    case 'or':
      return a.or(b);
    case 'scan': {
      let total = 0;
      for (let i = a.nextSet(0); i >= 0; i = a.nextSet(i + 1)) total = (total + i) | 0;
      return total;
    }
  }
}

function runWasm(
  wasm: WasmKernels,
  kernel: KernelName,
  a: Bitmap,
  b: Bitmap,
): { result: number; us: number } {
  const bytes = WORDS * 4;
  wasm.memory.set(a.bytes, 0);
  wasm.memory.set(b.bytes, bytes);
  const start = performance.now();
  const result = wasm.run[kernel](0, bytes, bytes);
  return { result, us: (performance.now() - start) * 1e3 };
}

/** Microseconds of one pass; `restore` undoes what it changed, outside the time. */
function timed(run: () => number, restore: () => void): number {
  const start = performance.now();
  run();
  const us = (performance.now() - start) * 1e3;
  restore();
  return us;
}

/**
 * Bitmap kernels as hand-assembled WebAssembly over 64-bit words: what a compiler would make of
 * them, without one. Each kernel is `(a, b, end) → i32` over the bytes `a … end` of the memory.
 */

const I32 = 0x7f;
const I64 = 0x7e;
const Op = {
  BLOCK: 0x02,
  LOOP: 0x03,
  END: 0x0b,
  BR: 0x0c,
  BR_IF: 0x0d,
  GET: 0x20,
  SET: 0x21,
  LOAD64: 0x29,
  STORE64: 0x37,
  I32_CONST: 0x41,
  I64_CONST: 0x42,
  I32_LT_U: 0x49,
  I64_EQZ: 0x50,
  I32_ADD: 0x6a,
  I64_CTZ: 0x7a,
  I64_POPCNT: 0x7b,
  I64_ADD: 0x7c,
  I64_SUB: 0x7d,
  I64_AND: 0x83,
  I64_OR: 0x84,
  I64_XOR: 0x85,
  I32_WRAP: 0xa7,
} as const;
const VOID = 0x40;
const [A, B, END_OF_A, TOTAL, X, Y] = [0, 1, 2, 3, 4, 5] as const;

const get = (local: number): number[] => [Op.GET, local];
const set = (local: number, ...value: number[]): number[] => [...value, Op.SET, local];
/** 8 bytes at the address in a local, aligned to them. */
const load = (address: number): number[] => [...get(address), Op.LOAD64, 3, 0];
const step = (address: number): number[] =>
  set(address, ...get(address), Op.I32_CONST, 8, Op.I32_ADD);
const addTotal = (...value: number[]): number[] => set(TOTAL, ...get(TOTAL), ...value, Op.I64_ADD);

/** −1 as signed LEB128. */
const MINUS_ONE = 0x7f;
/** 64 as signed LEB128: two bytes, or it would be −64. */
const SIXTY_FOUR = [0xc0, 0x00];

const KERNELS = {
  popcount: addTotal(...load(A), Op.I64_POPCNT),
  andnot: addTotal(
    ...[...load(A), ...load(B), Op.I64_CONST, MINUS_ONE, Op.I64_XOR, Op.I64_AND],
    Op.I64_POPCNT,
  ),
  /** a |= b; returns how many bits became set. */
  or: [
    ...set(X, ...load(A)),
    ...set(Y, ...get(X), ...load(B), Op.I64_OR),
    ...addTotal(...get(X), ...get(Y), Op.I64_XOR, Op.I64_POPCNT),
    ...[...get(A), ...get(Y), Op.STORE64, 3, 0],
  ],
  /** Sum of the indices of the set bits: Y is the index of the word's first bit. */
  scan: [
    ...set(X, ...load(A)),
    ...[Op.BLOCK, VOID, Op.LOOP, VOID],
    ...[...get(X), Op.I64_EQZ, Op.BR_IF, 1],
    ...addTotal(...get(Y), ...get(X), Op.I64_CTZ, Op.I64_ADD),
    ...set(X, ...get(X), ...get(X), Op.I64_CONST, 1, Op.I64_SUB, Op.I64_AND),
    ...[Op.BR, 0, Op.END, Op.END],
    ...set(Y, ...get(Y), Op.I64_CONST, ...SIXTY_FOUR, Op.I64_ADD),
  ],
} as const;

export type KernelName = keyof typeof KERNELS;
type Kernel = (a: number, b: number, end: number) => number;

export interface WasmKernels {
  readonly memory: Uint8Array;
  readonly run: Readonly<Record<KernelName, Kernel>>;
}

/** An instance whose memory holds at least so many bytes. */
export function instantiateKernels(bytes: number): WasmKernels {
  const pages = Math.ceil(bytes / 65_536);
  const names = Object.keys(KERNELS) as KernelName[];
  const type = [0x60, 3, I32, I32, I32, 1, I32];
  const bodies = names.map((name) => {
    const locals = [1, 3, I64];
    const again = [...step(A), ...step(B), ...get(A), ...get(END_OF_A), Op.I32_LT_U, Op.BR_IF, 0];
    const code = [Op.LOOP, VOID, ...KERNELS[name], ...again, Op.END];
    const body = [...locals, ...code, ...get(TOTAL), Op.I32_WRAP, Op.END];
    return [...leb(body.length), ...body];
  });
  const exported = names.map((name, i) => [...text(name), 0, i]);
  const module = new Uint8Array([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [type]),
    ...section(
      3,
      names.map(() => [0]),
    ),
    ...section(5, [[0, ...leb(pages)]]),
    ...section(7, [[...text('memory'), 2, 0], ...exported]),
    ...section(10, bodies),
  ]);
  const { memory, ...run } = instantiate(module);
  return { memory: new Uint8Array(memory.buffer), run };
}

type Exports = Readonly<Record<KernelName, Kernel>> & { readonly memory: { buffer: ArrayBuffer } };

/** The compiler's library for Node declares no WebAssembly. */
interface WebAssemblyApi {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: Exports };
}

function instantiate(bytes: Uint8Array): Exports {
  const { WebAssembly: api } = globalThis as unknown as { readonly WebAssembly: WebAssemblyApi };
  return new api.Instance(new api.Module(bytes)).exports;
}

function section(id: number, entries: readonly (readonly number[])[]): number[] {
  const body = [...leb(entries.length), ...entries.flat()];
  return [id, ...leb(body.length), ...body];
}

function text(value: string): number[] {
  return [...leb(value.length), ...Buffer.from(value, 'latin1')];
}

/** Unsigned LEB128. */
function leb(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  return [...bytes, rest];
}

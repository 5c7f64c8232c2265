/**
 * The members of v86 that we use beyond what its own type file names, and how an instance is made:
 * its clock is ours, and nothing in it runs unless we say so.
 */
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BallastError } from '../../shared/index.ts';

type PortRead = () => number;
type PortWrite = (value: number) => void;

export interface V86Bar {
  readonly size: number;
}

export interface V86PciDevice {
  readonly pci_id: number;
  readonly name: string;
  readonly pci_space: readonly number[];
  readonly pci_bars: readonly V86Bar[];
}

/** v86's own names. */
export interface V86Cpu {
  /** Runs for about a millisecond of its clock; returns how long it could sleep, ms. */
  main_loop(): number;
  readonly instruction_counter: Uint32Array;
  readonly in_hlt: Uint8Array;
  readonly wasm_memory: { readonly buffer: ArrayBuffer };
  readonly mem8: Uint8Array;
  /** Forget code translated from these physical addresses. */
  jit_dirty_cache(start: number, end: number): void;
  pack_memory(): { bitmap: { get_buffer(): ArrayBuffer }; packed_memory: Uint8Array };
  unpack_memory(): void;
  readonly io: {
    register_read(port: number, device: object, r8: PortRead, r16: PortRead, r32: PortRead): void;
    register_write(
      port: number,
      device: object,
      w8: PortWrite,
      w16: PortWrite,
      w32: PortWrite,
    ): void;
  };
  readonly devices: {
    readonly pci: {
      register_device(device: V86PciDevice): void;
      raise_irq(pciId: number): void;
      lower_irq(pciId: number): void;
    };
  };
}

interface V86Runner {
  readonly cpu: V86Cpu;
  /** Schedules the next turn of its own loop. */
  yield(delayMs: number, tick: number): void;
  save_state(): ArrayBuffer;
  restore_state(state: ArrayBuffer): void;
}

export interface V86Emulator {
  readonly v86: V86Runner & { readonly constructor: { microtick: () => number } };
  add_listener(event: string, listener: (value: number) => void): void;
  serial_send_bytes(serial: number, bytes: Uint8Array): void;
}

export interface V86Boot {
  readonly memoryBytes: number;
  readonly bios: Uint8Array;
  /** Null: nothing to start; the state comes from elsewhere. */
  readonly kernel: {
    readonly bzImage: Uint8Array;
    readonly initrd: Uint8Array;
    readonly commandLine: string;
  } | null;
  /** Milliseconds of the guest's time. */
  readonly clock: () => number;
}

/** The compiler's library for Node declares no WebAssembly. */
interface WebAssemblyApi {
  readonly Module: new (bytes: Uint8Array) => object;
  instantiate(module: object, imports: object): Promise<{ readonly exports: object }>;
}

const { WebAssembly: api } = globalThis as unknown as { readonly WebAssembly: WebAssemblyApi };

/** Small: nobody looks at the screen. */
const VGA_MEMORY_BYTES = 1 << 20;

/** @throws BallastError FILE_MISSING when the optional package is not installed. */
export async function createV86(boot: V86Boot): Promise<V86Emulator> {
  const { V86, wasm } = await loadPackage();
  const emulator = new V86({
    wasm_fn: async (imports: Readonly<Record<string, object>>) => {
      // Its devices and its processor ask for the time here, as does `microtick` below.
      const env = { ...imports['env'], microtick: boot.clock };
      return (await api.instantiate(wasm, { env })).exports;
    },
    memory_size: boot.memoryBytes,
    vga_memory_size: VGA_MEMORY_BYTES,
    bios: { buffer: ownBuffer(boot.bios) },
    ...(boot.kernel && {
      bzimage: { buffer: ownBuffer(boot.kernel.bzImage) },
      initrd: { buffer: ownBuffer(boot.kernel.initrd) },
      cmdline: boot.kernel.commandLine,
    }),
    autostart: false,
    disable_keyboard: true,
    disable_mouse: true,
    disable_speaker: true,
    uart1: true,
  });
  await new Promise<void>((resolve) => emulator.add_listener('emulator-loaded', () => resolve()));
  emulator.v86.constructor.microtick = boot.clock;
  emulator.v86.yield = () => {};
  return emulator;
}

interface V86Package {
  readonly V86: new (options: object) => V86Emulator;
  readonly wasm: object;
}

let loaded: Promise<V86Package> | null = null;

function loadPackage(): Promise<V86Package> {
  loaded ??= (async () => {
    let path: string;
    try {
      path = fileURLToPath(import.meta.resolve('v86'));
    } catch {
      throw new BallastError(
        'FILE_MISSING',
        'guest linux: the package v86 is not installed (it is optional): npm install v86',
      );
    }
    const { V86 } = (await import('v86')) as unknown as Pick<V86Package, 'V86'>;
    const wasm = new api.Module(readFileSync(`${dirname(path)}/v86.wasm`));
    return { V86, wasm };
  })();
  return loaded;
}

/** v86 takes whole buffers, and a file that was read may share one with others. */
function ownBuffer(bytes: Uint8Array): ArrayBuffer {
  return Uint8Array.from(bytes).buffer;
}

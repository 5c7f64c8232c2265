/**
 * An x86 PC under our clock. Time is what its processor worked, at so many instructions a
 * millisecond, plus what it slept: it stands still between two slices, an idle guest costs nothing,
 * and a busy computer cannot make the guest miss its timers.
 */
import { BallastError } from '../../shared/index.ts';
import { END_MARK } from './initramfs.ts';
import {
  createV86,
  type V86Boot,
  type V86Cpu,
  type V86Emulator,
  type V86PciDevice,
} from './v86.ts';

/** 100 million instructions a second; v86's slice of 100,003 is then just above its millisecond. */
const INSTRUCTIONS_PER_MS = 100_000;
/** A halted processor whose timer is due within v86's rounding must still reach it. */
const IDLE_STEP_MIN_MS = 0.02;
/** Number of the serial port that the agent listens on. */
const AGENT_PORT = 1;
/** What the kernel said last, for a failure's message. */
const CONSOLE_KEPT_CHARS = 2000;

export type MachineBoot = Omit<V86Boot, 'clock'>;

export class X86Machine {
  readonly memoryBytes: number;
  readonly #emulator: V86Emulator;
  readonly #cpu: V86Cpu;
  readonly #clock: Clock;
  #memory: Uint8Array = new Uint8Array(0);
  #consoleText = '';
  #agentText = '';

  static async create(boot: MachineBoot): Promise<X86Machine> {
    const clock = new Clock();
    return new X86Machine(await createV86({ ...boot, clock: () => clock.nowMs }), clock, boot);
  }

  private constructor(emulator: V86Emulator, clock: Clock, { memoryBytes }: MachineBoot) {
    this.memoryBytes = memoryBytes;
    this.#emulator = emulator;
    this.#cpu = emulator.v86.cpu;
    this.#clock = clock;
    clock.attach(this.#cpu);
    emulator.add_listener('serial0-output-byte', (byte) => {
      this.#consoleText = (this.#consoleText + String.fromCharCode(byte)).slice(
        -CONSOLE_KEPT_CHARS,
      );
    });
    emulator.add_listener('serial1-output-byte', (byte) => {
      this.#agentText += String.fromCharCode(byte);
    });
    // RAM travels page by page; the rest of the state goes without it.
    const bitmapBytes = memoryBytes / 4096 / 8;
    this.#cpu.pack_memory = () => ({
      bitmap: { get_buffer: () => new ArrayBuffer(bitmapBytes) },
      packed_memory: new Uint8Array(0),
    });
    this.#cpu.unpack_memory = () => {};
  }

  get nowMs(): number {
    return this.#clock.nowMs;
  }

  /** All of RAM, live; do not keep it: v86 may move it when the guest runs. */
  get memory(): Uint8Array {
    const { buffer } = this.#cpu.wasm_memory;
    if (this.#memory.buffer !== buffer) {
      this.#memory = new Uint8Array(buffer, this.#cpu.mem8.byteOffset, this.memoryBytes);
    }
    return this.#memory;
  }

  /** What the kernel printed last on its console. */
  get consoleText(): string {
    return this.#consoleText;
  }

  /** Bytes were written behind the processor's back. */
  invalidateCode(gpa: number, lengthBytes: number): void {
    this.#cpu.jit_dirty_cache(gpa, gpa + lengthBytes);
  }

  /**
   * Runs for about a millisecond; sleeps, if the guest does, for no longer than `limitMs`.
   * @throws BallastError PEER_CLOSED when the processor cannot go on.
   */
  runSlice(limitMs: number): void {
    const sleepMs = this.#mainLoop();
    if (this.#cpu.in_hlt[0] === 0) return;
    const leftMs = limitMs - this.nowMs;
    if (leftMs > 0) this.#clock.sleep(Math.min(Math.max(sleepMs, IDLE_STEP_MIN_MS), leftMs));
  }

  #mainLoop(): number {
    try {
      return this.#cpu.main_loop();
    } catch (error) {
      // v86 has no triple fault for all that a damaged memory can lead to.
      if (!(error instanceof Error) || error.name !== 'RuntimeError') throw error;
      throw new BallastError(
        'PEER_CLOSED',
        `the guest's processor cannot go on, its memory or its state is damaged (v86: ${error.message})`,
      );
    }
  }

  registerPci(
    device: V86PciDevice,
    port: number,
    registers: {
      read(offset: number, sizeBytes: number): number;
      write(offset: number, sizeBytes: number, value: number): void;
    },
  ): void {
    const { io, devices } = this.#cpu;
    const [bar] = device.pci_bars;
    for (let offset = 0; offset < (bar?.size ?? 0); offset++) {
      const read = (sizeBytes: number) => () => registers.read(offset, sizeBytes);
      const write = (sizeBytes: number) => (value: number) =>
        registers.write(offset, sizeBytes, value >>> 0);
      // v86 wants 32-bit values signed.
      io.register_read(
        port + offset,
        device,
        read(1),
        read(2),
        () => registers.read(offset, 4) | 0,
      );
      io.register_write(port + offset, device, write(1), write(2), write(4));
    }
    devices.pci.register_device(device);
  }

  setIrq(pciId: number, raised: boolean): void {
    const { pci } = this.#cpu.devices;
    if (raised) pci.raise_irq(pciId);
    else pci.lower_irq(pciId);
  }

  typeLine(line: string): void {
    this.#emulator.serial_send_bytes(AGENT_PORT, Buffer.from(`${line}\n`));
  }

  /** What a finished line printed, and its exit status; null while none is over. */
  takeOutput(): { text: string; status: number } | null {
    const end = this.#agentText.indexOf(END_MARK);
    const stop = end < 0 ? -1 : this.#agentText.indexOf('\n', end);
    if (stop < 0) return null;
    const text = this.#agentText.slice(0, end).replaceAll('\r', '');
    const status = Number(this.#agentText.slice(end + 1, stop));
    this.#agentText = this.#agentText.slice(stop + 1);
    return { text, status };
  }

  /** Everything but RAM. Only between two slices. */
  saveState(): Uint8Array {
    const state = new Uint8Array(this.#emulator.v86.save_state());
    const saved = new Uint8Array(8 + state.length);
    new DataView(saved.buffer).setFloat64(0, this.nowMs, true);
    saved.set(state, 8);
    return saved;
  }

  restoreState(saved: Uint8Array): void {
    const { buffer, byteOffset } = saved;
    this.#clock.set(new DataView(buffer, byteOffset).getFloat64(0, true));
    this.#emulator.v86.restore_state(saved.slice(8).buffer as ArrayBuffer);
  }
}

class Clock {
  #cpu: V86Cpu | null = null;
  #lastCount = 0;
  #instructions = 0;
  #sleptMs = 0;

  attach(cpu: V86Cpu): void {
    this.#cpu = cpu;
    this.#lastCount = this.#count;
  }

  get nowMs(): number {
    const count = this.#count;
    // The counter has 32 bits.
    this.#instructions += (count - this.#lastCount) >>> 0;
    this.#lastCount = count;
    return this.#instructions / INSTRUCTIONS_PER_MS + this.#sleptMs;
  }

  sleep(ms: number): void {
    this.#sleptMs += ms;
  }

  set(nowMs: number): void {
    this.#lastCount = this.#count;
    this.#instructions = 0;
    this.#sleptMs = nowMs;
  }

  get #count(): number {
    return this.#cpu ? (this.#cpu.instruction_counter[0] ?? 0) >>> 0 : 0;
  }
}

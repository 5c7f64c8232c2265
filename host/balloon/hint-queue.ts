/** Chains of free_page_vq: what is a command, what is a block, and what breaks the device. */
import { type Gpa, gpaToPfn, PAGE_SHIFT, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { AvailCursor } from '../virtio/queue.ts';
import type { HintStateMachine } from './hinting.ts';
import { type BalloonMetrics, countViolation } from './metrics.ts';
import type { BalloonDeviceOptions } from './options.ts';

const HINT_COMMAND_BYTES = 4;

export class HintQueue {
  readonly #hinting: HintStateMachine;
  readonly #metrics: BalloonMetrics;
  readonly #takesFourBytesForCommand: boolean;
  readonly #takesLongCommands: boolean;
  readonly #roundsStartDown: boolean;
  readonly #clipsToRam: boolean;
  readonly #ramBytes: number;

  constructor(
    hinting: HintStateMachine,
    metrics: BalloonMetrics,
    { quirks, ramPages }: Pick<BalloonDeviceOptions, 'quirks' | 'ramPages'>,
  ) {
    this.#hinting = hinting;
    this.#metrics = metrics;
    this.#takesFourBytesForCommand = quirks.has('four-bytes-are-a-command');
    this.#takesLongCommands = quirks.has('long-hint-command-accepted');
    this.#roundsStartDown = quirks.has('hint-start-rounds-down');
    this.#clipsToRam = quirks.has('hint-clipped-to-ram');
    this.#ramBytes = ramPages * PAGE_SIZE_BYTES;
  }

  /** The chain under the cursor. False: the device is broken, and the chain stays with it. */
  handle(cursor: AvailCursor, virtio: VirtioDevice): boolean {
    const { out, outStart, outBytes, inStart, inCount, inBytes } = cursor;
    this.#hinting.beginChain(cursor.atNs);
    if (outBytes > 0) {
      if (!this.#isCommand(outBytes)) {
        countViolation(this.#metrics, 'bad_lengths');
        if (this.#takesFourBytesForCommand) return true;
        virtio.setNeedsReset();
        return false;
      }
      if (this.#hinting.command(out.getUint32(outStart, true))) virtio.configChanged();
    }
    for (let i = inStart; i < inStart + inCount; i++) {
      if (this.#takesFourBytesForCommand && inBytes[i] === HINT_COMMAND_BYTES) {
        if (this.#hinting.unreadableCommand()) virtio.configChanged();
      } else {
        this.#block(cursor, i);
      }
    }
    return true;
  }

  /** The `index`-th writable segment. Addresses stay in their columns: as arguments they are boxed. */
  #block(cursor: AvailCursor, index: number): void {
    const gpa = cursor.inGpa[index]!;
    const sizeBytes = cursor.inBytes[index]!;
    const firstPfn = gpaToPfn(gpa);
    const pageCount = sizeBytes >>> PAGE_SHIFT;
    const isWhole = firstPfn * PAGE_SIZE_BYTES === gpa && pageCount * PAGE_SIZE_BYTES === sizeBytes;
    if (isWhole && gpa + sizeBytes <= this.#ramBytes) this.#hinting.hint(firstPfn, pageCount);
    else this.#oddBlock(gpa, sizeBytes);
  }

  /** A block that is not made of whole pages of guest memory. */
  #oddBlock(gpa: Gpa, sizeBytes: number): void {
    const inRamBytes = Math.max(0, Math.min(sizeBytes, this.#ramBytes - gpa));
    const isOutside = inRamBytes < sizeBytes && !this.#clipsToRam;
    const isMisaligned = (gpa | sizeBytes) % PAGE_SIZE_BYTES !== 0 && !this.#roundsStartDown;
    const pageCount = Math.floor(inRamBytes / PAGE_SIZE_BYTES);
    if (isOutside || isMisaligned || pageCount === 0) {
      countViolation(this.#metrics, 'bad_hints');
      return;
    }
    this.#hinting.hint(gpaToPfn(gpa), pageCount);
  }

  #isCommand(lengthBytes: number): boolean {
    if (lengthBytes === HINT_COMMAND_BYTES) return true;
    return this.#takesLongCommands && lengthBytes > HINT_COMMAND_BYTES;
  }
}

/** Chains of free_page_vq: what is a command, what is a block, and what breaks the device. */
import type { DeviceQuirk } from '../../protocol/index.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { AvailCursor } from '../virtio/queue.ts';
import type { HintStateMachine } from './hinting.ts';
import { type BalloonMetrics, countViolation } from './metrics.ts';

const HINT_COMMAND_BYTES = 4;

export class HintQueue {
  readonly #hinting: HintStateMachine;
  readonly #metrics: BalloonMetrics;
  readonly #takesFourBytesForCommand: boolean;
  readonly #takesLongCommands: boolean;

  constructor(
    hinting: HintStateMachine,
    metrics: BalloonMetrics,
    quirks: ReadonlySet<DeviceQuirk>,
  ) {
    this.#hinting = hinting;
    this.#metrics = metrics;
    this.#takesFourBytesForCommand = quirks.has('four-bytes-are-a-command');
    this.#takesLongCommands = quirks.has('long-hint-command-accepted');
  }

  /** The chain under the cursor. False: the device is broken, and the chain stays with it. */
  handle(cursor: AvailCursor, virtio: VirtioDevice): boolean {
    const { out, outStart, outBytes, inStart, inCount, inGpa, inBytes, atNs } = cursor;
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
        this.#hinting.block(inGpa[i]!, inBytes[i]!, atNs);
      }
    }
    return true;
  }

  #isCommand(lengthBytes: number): boolean {
    if (lengthBytes === HINT_COMMAND_BYTES) return true;
    return this.#takesLongCommands && lengthBytes > HINT_COMMAND_BYTES;
  }
}

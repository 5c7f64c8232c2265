/**
 * A migration to no other host: the stream crosses the same channel into a memory of this process,
 * with the same encoding and checks, and the guest stays.
 */
import { type GuestFacts, localStream, sourceHello } from '../../protocol/index.ts';
import type { Vmm } from '../vmm.ts';
import { Incoming } from './incoming.ts';
import type { MigrationTarget } from './migration.ts';
import { OutgoingStream } from './outgoing.ts';

export class InPlace extends OutgoingStream implements MigrationTarget {
  readonly incoming: Incoming;

  private constructor(incoming: Incoming, vmm: Vmm) {
    super(localStream(incoming), vmm.records.recordSizeBytes);
    this.incoming = incoming;
  }

  static async open(vmm: Vmm, facts: GuestFacts): Promise<InPlace> {
    const target = new InPlace(new Incoming('', vmm.options), vmm);
    await sourceHello(target.link, facts);
    return target;
  }

  async handOver(): Promise<void> {
    await this.finish([]);
  }
}

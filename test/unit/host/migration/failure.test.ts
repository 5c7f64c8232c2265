/** A destination that goes away costs the migration, and the guest nothing. */
import { describe, expect, test } from 'vitest';
import { Incoming } from '../../../../host/migration/incoming.ts';
import { localStream, type Message, type StreamLink } from '../../../../protocol/index.ts';
import { BallastError, MIB, NS_PER_MS } from '../../../../shared/index.ts';
import { inProcess, MIGRATE } from '../../../support/in-process.ts';

const SLOW = { ...MIGRATE, bandwidthBytesPerS: 20 * MIB };
/** Every page has content, so that a pass takes many frames. */
const FULL = { initOnAlloc: false, initOnFree: false, pagePoison: true };

/** A stream that breaks at the n-th frame, or when a message of that name is sent. */
function breaking(incoming: Incoming, at: number | Message['name']): StreamLink {
  const link = localStream(incoming);
  let frames = 0;
  return {
    closed: link.closed,
    close: () => link.close(),
    exchange: (messages) => {
      const breaks = typeof at === 'number' ? ++frames > at : messages.some((m) => m.name === at);
      if (!breaks) return link.exchange(messages);
      return Promise.reject(new BallastError('PEER_CLOSED', 'the destination is gone'));
    },
  };
}

describe('a stream that breaks', () => {
  test.each([2, 8, 'deviceState', 'streamEnd'] as const)(
    'at %s: the migration fails, the guest runs on, and the next one succeeds',
    async (at) => {
      const { guest, hypervisor } = await inProcess({ guest: { strategy: 'alloc', mm: FULL } });
      await hypervisor.runUntil(100 * NS_PER_MS);
      const statuses: string[] = [];
      hypervisor.vmm.events.on('MIGRATION', ({ data }) => statuses.push(data.status));
      const link = breaking(new Incoming('unix:/gone', guest.facts), at);
      const report = await hypervisor.migrate(SLOW, link);
      expect(report.migration.status).toBe('failed');
      expect(report.error_desc).toBe('the destination is gone');
      expect(statuses.at(-1)).toBe('failed');
      expect(hypervisor.vmm.running).toBe(true);
      await hypervisor.runUntil(hypervisor.vmm.now + 50 * NS_PER_MS);
      // DONE has come: what was held for hinting is free again.
      expect(guest.system.strategy?.heldPages).toBe(0);
      expect(await hypervisor.verify()).toEqual([]);
      const again = await hypervisor.migrate(MIGRATE);
      expect([again.migration.status, again.memory.lost_pages]).toEqual(['completed', 0]);
    },
  );

  test('ends a migration long before all was sent', async () => {
    const { guest, hypervisor } = await inProcess({ guest: { mm: FULL } });
    await hypervisor.runUntil(100 * NS_PER_MS);
    const link = breaking(new Incoming('unix:/gone', guest.facts), 5);
    const { migration } = await hypervisor.migrate(SLOW, link);
    expect(migration.duplicate_pages + migration.normal_pages).toBeLessThan(4000);
  });
});

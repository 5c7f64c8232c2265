/**
 * Free memory in runs of 8 pages: walking the free lists under a budget finds nearly all of it with
 * a short lock hold; blocks of 4 MiB hardly exist, and a snapshot holds the lock for a whole list.
 */
import { describe, expect, test } from 'vitest';
import { recordUnusedPages } from '../../guest/mm/index.ts';
import { launch } from '../../lab/index.ts';
import type { MigrationReport, StrategyName } from '../../protocol/index.ts';
import { DEFAULT_COSTS, Errno } from '../../shared/index.ts';
import { inProcess, sharedRecording } from '../support/in-process.ts';

const BUDGET_NODES = 1000;

async function migrate(strategy: StrategyName): Promise<MigrationReport> {
  await using machine = await launch({
    recording: 'frag8-1g',
    strategy,
    iterate: { budgetNodes: BUDGET_NODES, minOrder: 0 },
  });
  await machine.boot();
  await machine.workload();
  await machine.waitUntil('migrate_at');
  return await machine.migrate();
}

describe('on fragmented memory', () => {
  test('a budgeted walk recalls nearly all free pages within its lock budget', async () => {
    const { hints, lock, memory } = await migrate('iterate');
    expect(hints.recall).toBeGreaterThanOrEqual(0.95);
    expect(lock.max_nodes).toBeGreaterThan(0);
    expect(lock.max_nodes).toBeLessThanOrEqual(BUDGET_NODES);
    const { zoneLockNs, listNodeNs } = DEFAULT_COSTS;
    expect(lock.max_hold_ns).toBeLessThanOrEqual(zoneLockNs + BUDGET_NODES * listNodeNs);
    expect(lock.mean_hold_ns).toBeLessThanOrEqual(lock.max_hold_ns);
    expect(memory.lost_pages).toBe(0);
  });

  test('allocating blocks of 4 MiB recalls little', async () => {
    const { hints, memory } = await migrate('alloc');
    expect(hints.recall).toBeGreaterThan(0);
    expect(hints.recall).toBeLessThan(0.6);
    expect(memory.lost_pages).toBe(0);
  });

  test('a snapshot of one order visits far more nodes in one hold', async () => {
    const recording = sharedRecording('frag8-1g');
    const { guest, hypervisor } = await inProcess({ recording });
    await hypervisor.runUntil(100_000_000);
    hypervisor.console('replay');
    await hypervisor.runUntil(100_000_000 + recording.header.migrateAtNs);
    const buffer = new BigUint64Array(2 * guest.system.mm.freePages());
    let longest = { nodes: 0, holdNs: 0 };
    for (const zone of guest.system.mm.zones) {
      for (let order = 0; order <= 10; order++) {
        const result = recordUnusedPages(
          guest.system.mm,
          DEFAULT_COSTS,
          zone,
          order,
          buffer,
          0,
          true,
        );
        expect(result.status).toBe(Errno.OK);
        if (result.nodesVisited > longest.nodes) {
          longest = { nodes: result.nodesVisited, holdNs: result.holdNs };
        }
      }
    }
    expect(longest.nodes).toBeGreaterThan(10 * BUDGET_NODES);
    expect(longest.holdNs).toBeGreaterThan(10 * BUDGET_NODES * DEFAULT_COSTS.listNodeNs);
  });
});

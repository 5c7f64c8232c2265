/** What a test bench does to QEMU, over QMP. */
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type {
  GuestStatsReport,
  HostControl,
  MigrationLimits,
  MigrationProgress,
  OnPage,
} from '../host-control.ts';
import { MigrationStream } from './migration-stream.ts';
import { BALLOON_QOM_PATH, type QemuProcess } from './process.ts';
import type { QmpObject, QmpValue } from './qmp.ts';

/** What QEMU says of a statistic that the guest never reported. */
const UNREPORTED = 2n ** 64n - 1n;

export class QmpControl implements HostControl {
  readonly name = 'QMP';
  readonly #qemu: QemuProcess;
  readonly #ramPages: number;
  #migrations = 0;
  #destination: Server | null = null;
  #streamFailure: Error | null = null;

  constructor(qemu: QemuProcess, ramPages: number) {
    this.#qemu = qemu;
    this.#ramPages = ramPages;
  }

  async setTarget(pages: number): Promise<void> {
    const value = (this.#ramPages - pages) * PAGE_SIZE_BYTES;
    await this.#qemu.qmp.execute('balloon', { value });
  }

  async actualPages(): Promise<number> {
    const { actual } = await this.#qemu.qmp.execute<QmpObject>('query-balloon');
    return this.#ramPages - Number(actual) / PAGE_SIZE_BYTES;
  }

  async setStatsPollingInterval(seconds: number): Promise<void> {
    const property = 'guest-stats-polling-interval';
    await this.#qemu.qmp.execute('qom-set', { path: BALLOON_QOM_PATH, property, value: seconds });
  }

  async guestStats(): Promise<GuestStatsReport> {
    const property = 'guest-stats';
    const { qmp } = this.#qemu;
    const found = await qmp.execute<QmpObject>('qom-get', { path: BALLOON_QOM_PATH, property });
    const stats: Record<string, number | null> = {};
    for (const [name, value] of Object.entries(found['stats'] as QmpObject)) {
      stats[name] = value === UNREPORTED ? null : Number(value);
    }
    return { stats, lastUpdateS: Number(found['last-update']) };
  }

  async migrate(limits: MigrationLimits, onPage: OnPage = () => undefined): Promise<void> {
    this.#destination?.close();
    const path = join(this.#qemu.folder, `migration-${++this.#migrations}.sock`);
    const stream = new MigrationStream(this.#ramPages, onPage);
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (chunk) => {
        try {
          stream.push(chunk as Buffer);
        } catch (error) {
          this.#streamFailure ??= error as Error;
          socket.destroy();
        }
      });
    });
    this.#destination = server;
    await new Promise<void>((resolve) => server.listen(path, resolve));
    await this.setMigrationLimits(limits);
    await this.#qemu.qmp.execute('migrate', { uri: `unix:${path}` });
  }

  /** To a QEMU that waits there, and not to us. */
  async migrateTo(path: string, limits: MigrationLimits): Promise<void> {
    await this.setMigrationLimits(limits);
    await this.#qemu.qmp.execute('migrate', { uri: `unix:${path}` });
  }

  async setMigrationLimits(limits: MigrationLimits): Promise<void> {
    await this.#qemu.qmp.execute('migrate-set-parameters', {
      'max-bandwidth': limits.bandwidthBytesPerS,
      'downtime-limit': limits.downtimeLimitMs,
    });
  }

  async cancelMigration(): Promise<void> {
    await this.#qemu.qmp.execute('migrate_cancel');
  }

  async queryMigration(): Promise<MigrationProgress> {
    if (this.#streamFailure) throw this.#streamFailure;
    const found = await this.#qemu.qmp.execute<QmpObject>('query-migrate');
    const ram = (found['ram'] ?? {}) as { readonly [key: string]: QmpValue };
    return {
      status: String(found['status'] ?? 'none'),
      normalPages: Number(ram['normal'] ?? 0),
      duplicatePages: Number(ram['duplicate'] ?? 0),
      transferredBytes: Number(ram['transferred'] ?? 0),
      remainingBytes: Number(ram['remaining'] ?? 0),
    };
  }

  async stop(): Promise<void> {
    await this.#qemu.qmp.execute('stop');
  }

  async cont(): Promise<void> {
    await this.#qemu.qmp.execute('cont');
  }

  close(): void {
    this.#destination?.close();
  }
}

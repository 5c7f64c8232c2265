/**
 * Everything of a machine that uses memory, by name, and what serves it: allocation, reclaim, kswapd,
 * the OOM killer. What runs above this layer, compaction and page migration, is plugged in.
 */
import { Errno } from '../../shared/index.ts';
import type { Folios, ReferenceHolder } from '../folio/index.ts';
import { Gup } from '../gup/gup.ts';
import { VfioContainer } from '../gup/vfio.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { highestZoneOf, type PageAllocatorHooks } from '../mm/index.ts';
import { Oom } from '../oom/oom.ts';
import {
  AddressSpace,
  type AddressSpaceOptions,
  type FileMemory,
} from '../page-cache/page-cache.ts';
import { type StorageOptions, Writeback } from '../page-cache/writeback.ts';
import { Process, type ProcessOptions } from '../process/process.ts';
import { AllocPages } from '../reclaim/alloc-pages.ts';
import { Kswapd } from '../reclaim/kswapd.ts';
import { Vmscan } from '../reclaim/vmscan.ts';
import type { Kthread } from '../sched/kthread.ts';
import { auditFolios } from './audit.ts';
import { KernelMemory, type KernelMemoryOptions } from './slab.ts';

export class MemoryUsers implements FileMemory {
  readonly kernel: Kernel;
  readonly folios: Folios;
  readonly source: AllocPages;
  readonly writeback: Writeback;
  readonly vmscan: Vmscan;
  readonly kswapd: Kswapd;
  readonly oom: Oom;
  readonly gup: Gup;
  readonly processes = new Map<string, Process>();
  readonly spaces = new Map<string, AddressSpace>();
  readonly containers = new Map<string, VfioContainer>();
  readonly slabs = new Map<string, KernelMemory>();
  /** Of pages that are neither processes' nor files', but are audited: a contiguous range, say. */
  readonly holders: ReferenceHolder[] = [];

  constructor(kernel: Kernel, folios: Folios, storage?: StorageOptions) {
    this.kernel = kernel;
    this.folios = folios;
    this.writeback = new Writeback(kernel, folios, storage);
    this.vmscan = new Vmscan(kernel, folios);
    this.kswapd = new Kswapd(kernel, this.vmscan);
    this.oom = new Oom(kernel, () => this.processes.values());
    this.source = new AllocPages(kernel, this);
    this.gup = new Gup(this);
  }

  /** What the page allocator asks for on its own: kswapd, and reclaim for who cannot wait. */
  get allocatorHooks(): Required<Pick<PageAllocatorHooks, 'reclaim' | 'wakeKswapd'>> {
    return {
      reclaim: (_order, gfp) => this.vmscan.tryToFreeNow(highestZoneOf(gfp)),
      wakeKswapd: (order, highest) => this.kswapd.wake(order, highest),
    };
  }

  /** Boot: kswapd runs from now on. */
  start(): void {
    this.kernel.spawn('kswapd0', () => this.kswapd.run());
  }

  /** A new process without pages. `undefined`: the name is in use. */
  startProcess(options: ProcessOptions): Process | undefined {
    if (this.processes.has(options.name)) return undefined;
    const process = new Process(this, options);
    this.processes.set(options.name, process);
    return process;
  }

  /** EAGAIN and ENOMEM as `Process.fork`; EBUSY: the name is in use; ENOENT: no such process. */
  fork(parentName: string, name: string, cpu = 0): Process | Errno {
    const parent = this.#liveProcess(parentName);
    if (!parent) return Errno.ENOENT;
    if (this.processes.has(name)) return Errno.EBUSY;
    const child = parent.fork(name, cpu);
    if (typeof child !== 'number') this.processes.set(name, child);
    return child;
  }

  /** Also of one that the OOM killer has ended: then only its name goes. ENOENT: no such process. */
  exit(name: string, cpu = 0): Errno {
    const process = this.processes.get(name);
    if (!process) return Errno.ENOENT;
    if (process.isAlive) process.exit(cpu);
    this.processes.delete(name);
    return Errno.OK;
  }

  /** A new file, or shared memory, without pages. `undefined`: the name is in use. */
  createSpace(options: AddressSpaceOptions): AddressSpace | undefined {
    if (this.spaces.has(options.name)) return undefined;
    const space = new AddressSpace(this, options);
    this.spaces.set(options.name, space);
    return space;
  }

  /** EBUSY: a process maps it; ENOENT: no such file. */
  *removeSpace(name: string): Kthread<Errno> {
    const space = this.spaces.get(name);
    if (!space) return Errno.ENOENT;
    const outcome = yield* space.remove();
    if (outcome === Errno.OK) this.spaces.delete(name);
    return outcome;
  }

  /** The VFIO container of that name, opened if it is not open. */
  container(name: string): VfioContainer {
    let container = this.containers.get(name);
    if (!container) {
      container = new VfioContainer(this.gup);
      this.containers.set(name, container);
    }
    return container;
  }

  closeContainer(name: string): Errno {
    const container = this.containers.get(name);
    if (!container) return Errno.ENOENT;
    container.close();
    this.containers.delete(name);
    return Errno.OK;
  }

  /** The kernel's memory of that name, begun if it is new. */
  slab(name: string, options: KernelMemoryOptions): KernelMemory {
    let slab = this.slabs.get(name);
    if (!slab) {
      slab = new KernelMemory(this, options);
      this.slabs.set(name, slab);
    }
    return slab;
  }

  /** Everything goes: afterwards no page is in use by any of them. */
  *releaseAll(): Kthread {
    for (const name of [...this.processes.keys()]) this.exit(name);
    for (const name of [...this.containers.keys()]) this.closeContainer(name);
    for (const name of [...this.spaces.keys()]) yield* this.removeSpace(name);
    for (const slab of this.slabs.values()) slab.freeAll();
    this.slabs.clear();
  }

  /** Empty when every page in use is accounted for. */
  audit(): string[] {
    return auditFolios({
      folios: this.folios,
      processes: [...this.processes.values()].filter(({ isAlive }) => isAlive),
      spaces: [...this.spaces.values()],
      holders: [this.gup, ...this.slabs.values(), ...this.holders],
    });
  }

  #liveProcess(name: string): Process | undefined {
    const process = this.processes.get(name);
    return process?.isAlive ? process : undefined;
  }
}

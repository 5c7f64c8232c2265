/**
 * Where the real peers are: what `npm run peers` fetched, or programs of this system. Looks, and
 * neither fetches nor prints.
 */
import { existsSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { cacheFolder, PARTS_FILE, readLockText } from './lock.ts';

export interface QemuPeer {
  readonly binary: string;
  /** What the environment of the process must hold besides this process's own. */
  readonly env: Readonly<Record<string, string>>;
  /** For `-L`: firmware and ROMs. */
  readonly dataDir: string;
}

export interface LinuxPeer {
  /** A bzImage, i386. */
  readonly kernel: string;
  /** `…/lib/modules/RELEASE`. */
  readonly modulesDir: string;
  /** As `uname -r` prints it. */
  readonly release: string;
  /** Statically linked, i386. */
  readonly busybox: string;
  /** SeaBIOS. */
  readonly bios: string;
}

export interface Peers {
  readonly qemu: QemuPeer | null;
  readonly linux: LinuxPeer | null;
  /** One line for each part that is not there. */
  readonly missing: readonly string[];
}

const QEMU = 'qemu-system-x86_64';
const HOW = 'run `ballast peers`, in a checkout `npm run peers`';

/** `BALLAST_QEMU` names another binary to test against; it finds its firmware itself. */
export function findPeers(): Peers {
  const fetched = cacheFolder(readLockText());
  const cached = existsSync(join(fetched, PARTS_FILE)) ? fetched : null;
  const qemu = chosenQemu() ?? (cached ? cachedQemu(join(cached, 'qemu')) : systemQemu());
  const linux = cached ? cachedLinux(cached) : null;
  const missing: string[] = [];
  if (!qemu) missing.push(`${QEMU}: ${HOW}`);
  if (!linux) missing.push(`an i386 Linux kernel, busybox and SeaBIOS: ${HOW}`);
  return { qemu, linux, missing };
}

function chosenQemu(): QemuPeer | null {
  const binary = process.env['BALLAST_QEMU'];
  return binary ? { binary, env: {}, dataDir: '/usr/share/qemu' } : null;
}

function cachedQemu(root: string): QemuPeer | null {
  const binary = join(root, 'usr/bin', QEMU);
  if (!existsSync(binary)) return null;
  const libraries: string[] = [];
  for (const base of ['usr/lib', 'lib']) {
    const folder = join(root, base);
    const triplet = existsSync(folder)
      ? readdirSync(folder).find((name) => name.includes('-linux-gnu'))
      : undefined;
    if (triplet) libraries.push(join(folder, triplet));
  }
  const own = process.env['LD_LIBRARY_PATH'];
  const env = { LD_LIBRARY_PATH: [...libraries, ...(own ? [own] : [])].join(delimiter) };
  return { binary, env, dataDir: join(root, 'firmware') };
}

function systemQemu(): QemuPeer | null {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const binary = join(folder, QEMU);
    if (folder && existsSync(binary)) return { binary, env: {}, dataDir: '/usr/share/qemu' };
  }
  return null;
}

function cachedLinux(root: string): LinuxPeer | null {
  const boot = join(root, 'linux/boot');
  const kernelName = existsSync(boot)
    ? readdirSync(boot).find((name) => name.startsWith('vmlinuz-'))
    : undefined;
  if (!kernelName) return null;
  const release = kernelName.slice('vmlinuz-'.length);
  const peer: LinuxPeer = {
    kernel: join(boot, kernelName),
    modulesDir: join(root, 'linux/lib/modules', release),
    release,
    busybox: join(root, 'linux/bin/busybox'),
    bios: join(root, 'qemu/usr/share/seabios/bios.bin'),
  };
  return [peer.modulesDir, peer.busybox, peer.bios].every((path) => existsSync(path)) ? peer : null;
}

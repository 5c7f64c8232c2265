/**
 * The initial RAM file system of the guest, written here: busybox, the virtio modules and a script
 * that mounts what a shell needs and then takes command lines from the second serial port.
 */
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

/** In the order in which they depend on each other. */
export const VIRTIO_MODULES = [
  'virtio',
  'virtio_ring',
  'virtio_pci_legacy_dev',
  'virtio_pci_modern_dev',
  'virtio_pci',
  'virtio_balloon',
] as const;

/** What the agent prints when a line is over, before its exit status and a line feed. */
export const END_MARK = '\x1e';

const DIRECTORY = 0o040755;
const EXECUTABLE = 0o100755;
const FILE = 0o100644;
const CHARACTER_DEVICE = 0o020600;

export interface InitramfsParts {
  readonly busyboxPath: string;
  /** The folder of the kernel's modules that holds `kernel/drivers/virtio`. */
  readonly modulesDir: string;
}

export function buildInitramfs({ busyboxPath, modulesDir }: InitramfsParts): Uint8Array {
  const archive = new CpioArchive();
  for (const name of ['bin', 'dev', 'lib']) archive.add({ name, mode: DIRECTORY });
  archive.add({ name: 'dev/console', mode: CHARACTER_DEVICE, device: [5, 1] });
  archive.add({ name: 'init', mode: EXECUTABLE, data: Buffer.from(INIT_SCRIPT) });
  archive.add({ name: 'bin/busybox', mode: EXECUTABLE, data: readFileSync(busyboxPath) });
  for (const module of VIRTIO_MODULES) {
    const data = readFileSync(`${modulesDir}/kernel/drivers/virtio/${module}.ko`);
    archive.add({ name: `lib/${module}.ko`, mode: FILE, data });
  }
  return gzipSync(archive.finish(), { level: 1 });
}

const MODULE_PATHS = VIRTIO_MODULES.map((module) => `/lib/${module}.ko`);

/** `bind` and `unbind` load and unload the driver; everything else is busybox's. */
const INIT_SCRIPT = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /tmp /run /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
bind() { for module in ${MODULE_PATHS.slice(0, -1).join(' ')}; do
  [ -d /sys/module/$(basename $module .ko) ] || insmod $module; done
  insmod ${MODULE_PATHS.at(-1)} "$@"; }
unbind() { rmmod virtio_balloon && rmmod virtio_pci; }
exec </dev/ttyS1 >/dev/ttyS1 2>&1
stty raw -echo
printf '${octal(END_MARK)}0\\n'
while read -r line; do
  eval "$line" </dev/null
  printf '${octal(END_MARK)}%d\\n' $?
done
`;

function octal(text: string): string {
  return [...text].map((char) => `\\${char.charCodeAt(0).toString(8).padStart(3, '0')}`).join('');
}

interface CpioEntry {
  readonly name: string;
  readonly mode: number;
  readonly data?: Uint8Array;
  /** Major and minor number. */
  readonly device?: readonly [number, number];
}

/** "newc", the format that the kernel unpacks: headers of hexadecimal fields, everything 4-aligned. */
class CpioArchive {
  readonly #parts: Uint8Array[] = [];
  #inode = 1;

  add({ name, mode, data = new Uint8Array(0), device = [0, 0] }: CpioEntry): void {
    const path = Buffer.from(`${name}\0`);
    const fields = {
      inode: this.#inode++,
      mode,
      uid: 0,
      gid: 0,
      links: 1,
      mtime: 0,
      fileSize: data.length,
      deviceMajor: 0,
      deviceMinor: 0,
      rdeviceMajor: device[0],
      rdeviceMinor: device[1],
      nameSize: path.length,
      check: 0,
    };
    const header = Object.values(fields).map((value) => value.toString(16).padStart(8, '0'));
    this.#push(Buffer.concat([Buffer.from(`070701${header.join('')}`), path]));
    this.#push(data);
  }

  finish(): Uint8Array {
    this.add({ name: 'TRAILER!!!', mode: 0 });
    return Buffer.concat(this.#parts);
  }

  #push(bytes: Uint8Array): void {
    this.#parts.push(bytes, new Uint8Array((4 - (bytes.length % 4)) % 4));
  }
}

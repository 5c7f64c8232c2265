/** What each set of packages is made of when the lock does not say, and what of it is kept. */
import { type Apt, FetchError } from './apt.ts';
import type { LockedPackage, LockedSet, SetName } from './lock.ts';

/** Debian's names of the architectures that QEMU's package is built for. */
const DEBIAN_ARCHITECTURES: Partial<Record<string, string>> = {
  x64: 'amd64',
  arm64: 'arm64',
  ia32: 'i386',
};

/** The guest's architecture is v86's; QEMU runs on this machine. */
export function architectureOf(set: SetName): string {
  return set === 'linux' ? 'i386' : (DEBIAN_ARCHITECTURES[process.arch] ?? process.arch);
}

/**
 * Dependencies that a program which is only unpacked has no use for: what maintainer scripts call,
 * firmware of network cards, names of languages. The C library stays the system's: it belongs
 * together with the system's program loader.
 */
const NOT_NEEDED =
  /^(libc6|libc-bin|adduser|passwd|debconf|libpam.*|libsemanage.*|libsepol2|libaudit.*|libcap-ng0|libdb5\.3|perl-base|iso-codes|ipxe-qemu|libcap2-bin|libdrm-common|libasound2-data|gcc-\d+-base)$/;

const KERNEL = 'linux-image-686';

async function namesOf(set: SetName, apt: Apt): Promise<string[]> {
  if (set === 'qemu') {
    const names = await apt.closure(['qemu-system-x86', 'seabios']);
    return names.filter((name) => !NOT_NEEDED.test(name)).sort();
  }
  // The name of the kernel's package changes with its ABI; an empty one depends on the newest.
  const images = await apt.depends(KERNEL);
  return ['busybox-static', KERNEL, ...images.filter((name) => name.startsWith('linux-image-'))];
}

/** The newest of everything. */
export async function resolveNewest(set: SetName, apt: Apt): Promise<LockedSet> {
  const names = await namesOf(set, apt);
  const shown = await apt.show(names);
  const packages = names.map((name) => {
    const newest = shown.find((candidate) => candidate.name === name);
    if (!newest) throw new FetchError(`the archive has no package ${name}`);
    return newest;
  });
  return { architecture: architectureOf(set), packages };
}

/**
 * How the archive stands to the lock: null if it has each locked version, with the locked sum.
 * Otherwise one line for a person.
 */
export function differenceOf(set: LockedSet, shown: readonly LockedPackage[]): string | null {
  const gone: string[] = [];
  for (const locked of set.packages) {
    const same = shown.filter(({ name, version }) => {
      return name === locked.name && version === locked.version;
    });
    if (same.length === 0) gone.push(`${locked.name} ${locked.version}`);
    else if (!same.some(({ sha256 }) => sha256 === locked.sha256)) {
      throw new FetchError(
        `${locked.name} ${locked.version}: the archive's SHA-256 is not the locked one`,
      );
    }
  }
  if (gone.length === 0) return null;
  const more = gone.length > 1 ? ` and ${gone.length - 1} more` : '';
  return `the archive no longer has ${gone[0]}${more}`;
}

/** What is unpacked of a package: tar's exclusions. Modules of hardware that v86 has not. */
export function exclusionsOf(name: string): readonly string[] {
  const documentation = ['./usr/share/doc', './usr/share/man', './usr/share/locale'];
  if (!name.startsWith('linux-image-')) return documentation;
  const modules = './lib/modules/*/kernel';
  const drivers = ['gpu', 'media', 'net', 'scsi', 'usb', 'infiniband', 'staging', 'iio', 'hwmon'];
  return [
    ...documentation,
    `${modules}/sound`,
    `${modules}/net`,
    ...drivers.map((driver) => `${modules}/drivers/${driver}`),
  ];
}

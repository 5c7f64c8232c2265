/**
 * apt with a state of its own: the system's sources, keys and proxies, but lists, cache and package
 * status in a private folder, so neither root nor a change of the system is needed. Whatever it
 * downloads, it checks against the archive's signed metadata.
 */
import { type ExecFileException, execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LockedPackage } from './lock.ts';

/** Cannot go on for want of a program, of the network, or of a package: one line for a person. */
export class FetchError extends Error {
  override readonly name = 'FetchError';
}

const MAX_OUTPUT_BYTES = 64 << 20;

export function run(
  program: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const done = (error: ExecFileException | null, stdout: string, stderr: string) => {
      if (!error) return resolve(stdout);
      const missing = error.code === 'ENOENT';
      const lines = stderr.split('\n').filter((line) => /^(E|dpkg-deb|tar):/.test(line));
      const why = missing ? 'is not installed' : (lines[0] ?? error.message.split('\n')[0]);
      reject(new FetchError(`${program}: ${why}`));
    };
    execFile(program, args, { maxBuffer: MAX_OUTPUT_BYTES, encoding: 'utf8', ...options }, done);
  });
}

/** Stanzas as `apt-cache show` prints them; all versions of each package, newest first. */
export function parseStanzas(text: string): LockedPackage[] {
  const found: LockedPackage[] = [];
  for (const stanza of text.split(/\n\n+/)) {
    const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(stanza)?.[1];
    const name = field('Package');
    const version = field('Version');
    const architecture = field('Architecture');
    const sha256 = field('SHA256');
    if (name && version && architecture && sha256) {
      found.push({ name, version, architecture, sha256 });
    }
  }
  return found;
}

export class Apt {
  readonly #env: NodeJS.ProcessEnv;
  readonly #downloads: string;
  readonly #options: readonly string[];

  private constructor(env: NodeJS.ProcessEnv, downloads: string, options: readonly string[]) {
    this.#env = env;
    this.#downloads = downloads;
    this.#options = options;
  }

  /** A state of its own under `folder`, for one architecture. */
  static async create(folder: string, architecture: string): Promise<Apt> {
    const downloads = join(folder, 'debs');
    for (const name of ['lists/partial', 'cache/archives/partial', 'debs', 'none']) {
      mkdirSync(join(folder, name), { recursive: true });
    }
    // No package counts as installed: what is needed does not depend on this machine.
    writeFileSync(join(folder, 'status'), '');
    // Of the system's own settings only those of downloading hold: proxies, retries, timeouts.
    const settings = await run('apt-config', ['dump']);
    const acquire = settings.split('\n').filter((line) => /^Acquire::(?!Languages)/.test(line));
    const config = [
      ...acquire,
      `Dir::Etc::parts "${join(folder, 'none')}";`,
      'Dir::Etc::main "none.conf";',
      `Dir::State::lists "${join(folder, 'lists')}";`,
      `Dir::State::status "${join(folder, 'status')}";`,
      `Dir::Cache "${join(folder, 'cache')}";`,
      `APT::Architecture "${architecture}";`,
      'APT::Install-Recommends "false";',
      'Acquire::Languages "none";',
      // Root would hand downloads to a user that may not enter this folder.
      'APT::Sandbox::User "root";',
    ];
    const file = join(folder, 'apt.conf');
    writeFileSync(file, `${config.join('\n')}\n`);
    const env = { ...process.env, APT_CONFIG: file, LC_ALL: 'C' };
    return new Apt(env, downloads, ['-o', `APT::Architectures::=${architecture}`]);
  }

  #run(program: string, ...args: string[]): Promise<string> {
    const options = { env: this.#env, cwd: this.#downloads };
    return run(program, [...this.#options, ...args], options);
  }

  /**
   * Fetch the lists. A source that fails (a third party's, a mirror that is just being updated) is
   * no error yet: what is needed may be in the others. Returns what apt said about it, or null.
   */
  async update(): Promise<string | null> {
    return this.#run('apt-get', 'update').then(
      () => null,
      (error: Error) => error.message,
    );
  }

  /** Every known version of these packages, newest first for each; unknown names are left out. */
  async show(names: readonly string[]): Promise<LockedPackage[]> {
    const known = new Set((await this.#run('apt-cache', 'pkgnames')).split('\n'));
    const asked = names.filter((name) => known.has(name));
    if (asked.length === 0) return [];
    return parseStanzas(await this.#run('apt-cache', 'show', ...asked));
  }

  /** Names of all that must be installed beside `names`, themselves included. */
  async closure(names: readonly string[]): Promise<string[]> {
    const listed = await this.#run('apt-get', 'install', '--print-uris', '--yes', ...names);
    return listed
      .split('\n')
      .filter((line) => line.startsWith("'"))
      .map((line) => line.split(' ')[1]!.split('_')[0]!);
  }

  /** Direct dependencies, first alternatives. */
  async depends(name: string): Promise<string[]> {
    const listed = await this.#run('apt-cache', 'depends', '--important', name);
    return [...listed.matchAll(/^ {2}(?:Pre)?Depends: ([^<\s]+)/gm)].map((match) => match[1]!);
  }

  /** Download these versions. Returns the folder that holds their archives. */
  async download(packages: readonly LockedPackage[]): Promise<string> {
    const wanted = packages.map(({ name, version }) => `${name}=${version}`);
    await this.#run('apt-get', 'download', ...wanted);
    return this.#downloads;
  }
}

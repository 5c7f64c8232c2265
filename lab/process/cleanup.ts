import { rmSync } from 'node:fs';

/**
 * What must not outlive this process: children and temporary folders. Whoever makes one registers
 * how to get rid of it at once; that runs on exit, on SIGINT, SIGTERM and SIGHUP.
 */

type Disposer = () => void;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const disposers = new Set<Disposer>();

/** Returns how to withdraw the registration. */
export function onExit(disposer: Disposer): () => void {
  if (disposers.size === 0) install();
  disposers.add(disposer);
  return () => {
    disposers.delete(disposer);
    if (disposers.size === 0) uninstall();
  };
}

/** Removes a folder of ours now, or leaves it if that cannot be done: nothing depends on it. */
export function removeFolder(path: string): void {
  try {
    rmSync(path, { recursive: true, force: true });
  } catch {
    // A folder in the temporary directory that somebody else holds open.
  }
}

function disposeAll(): void {
  for (const disposer of disposers) disposer();
  disposers.clear();
}

function onSignal(signal: NodeJS.Signals): void {
  disposeAll();
  uninstall();
  // Another handler decides what becomes of the process; without one the signal ends it as usual.
  if (process.listenerCount(signal) === 0) process.kill(process.pid, signal);
}

function install(): void {
  process.on('exit', disposeAll);
  for (const signal of SIGNALS) process.on(signal, onSignal);
}

function uninstall(): void {
  process.off('exit', disposeAll);
  for (const signal of SIGNALS) process.off(signal, onSignal);
}

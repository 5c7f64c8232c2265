/** Whether there is no such process any more; null: there never was one. */
export function isGone(pid: number | null): boolean {
  try {
    process.kill(pid ?? -1, 0);
    return false;
  } catch {
    return true;
  }
}

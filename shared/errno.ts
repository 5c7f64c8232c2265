/**
 * Expected outcomes of mm and device code, as Linux returns them: 0 or a negative errno.
 * Numbers are Linux's (include/uapi/asm-generic/errno-base.h).
 */
export const Errno = {
  OK: 0,
  ENOENT: -2,
  EINTR: -4,
  EIO: -5,
  EAGAIN: -11,
  ENOMEM: -12,
  EBUSY: -16,
  EINVAL: -22,
  ENOSPC: -28,
} as const;

export type Errno = (typeof Errno)[keyof typeof Errno];

const names = new Map<number, string>(Object.entries(Errno).map(([name, code]) => [code, name]));

export function errnoName(code: Errno): string {
  return names.get(code) ?? `errno ${code}`;
}

import { BallastError, Bitmap } from '../../shared/index.ts';

/** One bit per page frame, as the guest sent it. @throws BallastError MESSAGE_INVALID: another length. */
export function ramBitmap(bits: Uint8Array, ramPages: number): Bitmap {
  const expected = ((ramPages + 31) >>> 5) * 4;
  if (bits.length !== expected) {
    throw new BallastError(
      'MESSAGE_INVALID',
      `a bitmap of guest memory: expected ${expected} bytes, found ${bits.length}`,
    );
  }
  return Bitmap.fromBytes(bits, ramPages);
}

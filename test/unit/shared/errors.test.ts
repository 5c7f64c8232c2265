import { describe, expect, test } from 'vitest';
import {
  AssertionError,
  assert,
  BallastError,
  type BallastErrorCode,
  Errno,
  ExitStatus,
  errnoName,
} from '../../../shared/index.ts';

describe('errors', () => {
  test.each<[BallastErrorCode, number]>([
    ['BAD_INPUT', ExitStatus.BAD_INPUT],
    ['FILE_MISSING', ExitStatus.BAD_INPUT],
    ['ADDRESS_IN_USE', ExitStatus.BAD_INPUT],
    ['RECORDING_MALFORMED', ExitStatus.BAD_INPUT],
    ['HELLO_MISMATCH', ExitStatus.BAD_INPUT],
    ['FRAME_MALFORMED', ExitStatus.PEER_LOST],
    ['FRAME_TOO_LARGE', ExitStatus.PEER_LOST],
    ['MESSAGE_INVALID', ExitStatus.PEER_LOST],
    ['MESSAGE_UNEXPECTED', ExitStatus.PEER_LOST],
    ['PEER_CLOSED', ExitStatus.PEER_LOST],
  ])('%s ends a command with status %i', (code, status) => {
    expect(new BallastError(code, 'one line').exitStatus).toBe(status);
  });

  test('of broken invariants say what must hold', () => {
    expect(() => assert(true, 'nothing')).not.toThrow();
    expect(() => assert(false, 'a page has one owner')).toThrow(
      new AssertionError('must hold: a page has one owner'),
    );
  });

  test('of Linux have their names', () => {
    expect(errnoName(Errno.ENOMEM)).toBe('ENOMEM');
    expect(errnoName(-95 as Errno)).toBe('errno -95');
  });
});

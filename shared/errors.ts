/** Exit statuses of every command (docs/result-format.md). */
export const ExitStatus = {
  OK: 0,
  EXPECTATION_FAILED: 1,
  BAD_INPUT: 2,
  PEER_LOST: 3,
} as const;
export type ExitStatus = (typeof ExitStatus)[keyof typeof ExitStatus];

export type BallastErrorCode =
  | 'BAD_INPUT' // a file, an argument, a scenario: the user can mend it
  | 'FILE_MISSING'
  | 'ADDRESS_IN_USE'
  | 'RECORDING_MALFORMED'
  | 'RECORDING_LOST_EVENTS'
  | 'FRAME_MALFORMED' // the peer sent what is not a frame
  | 'FRAME_TOO_LARGE'
  | 'MESSAGE_INVALID' // a frame, but not a message of the table
  | 'MESSAGE_UNEXPECTED' // a message of the table, at the wrong moment
  | 'HELLO_MISMATCH'
  | 'PEER_CLOSED'; // the peer died or the channel broke

const exitStatusOf: Partial<Record<BallastErrorCode, ExitStatus>> = {
  FRAME_MALFORMED: ExitStatus.PEER_LOST,
  FRAME_TOO_LARGE: ExitStatus.PEER_LOST,
  MESSAGE_INVALID: ExitStatus.PEER_LOST,
  MESSAGE_UNEXPECTED: ExitStatus.PEER_LOST,
  PEER_CLOSED: ExitStatus.PEER_LOST,
};

/**
 * What the edges throw (channel, command line, files). `message` is one line for a person:
 * where, what, what was expected. It crosses process borders as `{code, message}`.
 */
export class BallastError extends Error {
  override readonly name = 'BallastError';
  readonly code: BallastErrorCode;

  constructor(code: BallastErrorCode, message: string) {
    super(message);
    this.code = code;
  }

  get exitStatus(): ExitStatus {
    return exitStatusOf[this.code] ?? ExitStatus.BAD_INPUT;
  }
}

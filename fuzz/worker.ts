/** Starts the process that runs the cases, and notices when it does not come to an end. */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Done, FuzzReply, FuzzRequest, Repeated } from './request.ts';

const ENTRY = fileURLToPath(new URL('./process.ts', import.meta.url));
/** A batch of cases takes milliseconds, and a whole migration less than a second. */
const SILENCE_MAX_MS = 30_000;

export type Ended =
  | Done
  | Repeated
  | { readonly kind: 'hang' | 'died'; readonly case: number; readonly why: string };

/** Resolves when it is done, has died, or has said nothing for half a minute. */
export function runInProcess(
  request: FuzzRequest,
  onProgress: (number: number, ms: number) => void,
): Promise<Ended> {
  return new Promise((resolve) => {
    const child = fork(ENTRY, {
      execArgv: [...process.execArgv, '--expose-gc'],
      stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
    });
    let words = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      words = (words + text).slice(-4096);
    });
    let last = 0;
    const end = (ended: Ended): void => {
      clearTimeout(timer);
      child.removeAllListeners();
      child.kill('SIGKILL');
      resolve(ended);
    };
    const timer = setTimeout(() => {
      const why = `no sign of life for ${SILENCE_MAX_MS / 1000} s: a case does not come to an end`;
      end({ kind: 'hang', case: last, why });
    }, SILENCE_MAX_MS);
    child.on('message', (reply: FuzzReply) => {
      timer.refresh();
      if (reply.kind !== 'progress') {
        end(reply);
        return;
      }
      last = reply.case;
      onProgress(reply.case, reply.ms);
    });
    child.once('exit', (code, signal) => {
      end({ kind: 'died', case: last, why: `${signal ?? `exit status ${code}`} ${words.trim()}` });
    });
    child.send(request);
  });
}

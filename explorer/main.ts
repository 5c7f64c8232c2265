/** A worker of the schedule explorer: answers the laboratory's requests, one after the other. */
import type { ExploreRequest } from '../protocol/index.ts';
import { BallastError, ExitStatus } from '../shared/index.ts';
import { exitWith, onLaboratoryGone } from '../shared/process.ts';
import { serve } from './explore.ts';

process.on('message', (request: ExploreRequest) => {
  process.send?.(serve(request, () => performance.now()));
});
process.on('uncaughtException', (error) => exitWith('explorer', error));
onLaboratoryGone(() => process.exit(ExitStatus.OK));
if (!process.send) {
  exitWith(
    'explorer',
    new BallastError('BAD_INPUT', 'started alone: expected to be started by `ballast explore`'),
  );
}

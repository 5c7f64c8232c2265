/** The longer half of `--help`: examples, what the figures mean, exit statuses. */

const EXIT_STATUSES = `
Exit status:
  0  done, every expectation holds
  1  an expectation failed, a page was lost or an audit found a problem
  2  bad input: one line on stderr says where and what was expected
  3  a process died or the channel between them broke`;

const FIGURES = `
What the figures mean (docs/result-format.md defines each):
  normal, duplicate   pages sent with content, pages sent as "all zero", as query-migrate counts
  skipped, re-sent    pages that a hint kept out of the stream; skipped, then dirtied and sent after all
  efficiency          saved bytes, as a share of what perfect knowledge would save (needs none and oracle)
  recall              share of the free pages that the first round hinted
  precise, at use     share of hinted pages that were free when recorded, and when the host used the hint
  stale, late         reallocated before the host used the hint; arrived after its round had ended
  wasted              pages sent with content although they were free when the migration ended
  lost                pages whose content differs at the destination: must be 0
  lock max            longest time the zone lock was held to find hints
  held                most pages the strategy took from the guest at once
  measured, error     what QEMU did with the real guest; how far off the prediction is`;

export const GUIDE = `
Start here:
  $ ballast compare idle-1g               a recorded real guest, all strategies, beside what QEMU measured
  $ ballast inspect idle-1g               what is in that recording
  $ ballast run frag8-iterate             a scenario with expectations of its own
  $ ballast compare idle-1g --set mm.init_on_alloc=false

Strategies: none; iterate (walk the free lists, a bounded number of nodes per lock hold);
  alloc (what Linux does: allocate 4 MiB blocks and hold them); oracle (perfect knowledge, the limit).
${EXIT_STATUSES}

"ballast <command> --help" shows examples and explains the figures. Scenarios: docs/scenarios.md.
`;

export const COMPARE_GUIDE = `
Examples:
  $ ballast compare idle-1g
  $ ballast compare churn-1g --strategies none,alloc --json out.json
  $ ballast compare ./my-recording --jobs 1 --seed 7
  $ ballast compare idle-1g --set mm.init_on_alloc=false --set migration.bandwidth=100MiB/s
${FIGURES}
${EXIT_STATUSES}
`;

export const RUN_GUIDE = `
Examples:
  $ ballast run balloon-inflate
  $ ballast run scenarios/frag8-iterate.yaml --set iterate.budget=100
  $ ballast run my.yaml --log logs --json -
${FIGURES}
${EXIT_STATUSES}
`;

export const HOST_GUIDE = `
Example, in two terminals:
  $ ballast host  idle-1g --strategy alloc --listen  unix:/tmp/machine.sock
  $ ballast guest idle-1g --strategy alloc --connect unix:/tmp/machine.sock
Over TCP the host may be another machine; bind to an address that only friends can reach.
${EXIT_STATUSES}
`;

export const GUEST_GUIDE = `
Example:
  $ ballast guest idle-1g --strategy alloc --connect unix:/tmp/machine.sock

Give it the same scenario, strategy, seed and --set as the host: the guest decides what the machine
is, the host what happens to it.
${EXIT_STATUSES}
`;

export const IMPORT_GUIDE = `
Example:
  $ ballast import ./my-guest -o my-guest.ballast
  $ ballast compare my-guest.ballast

The folder holds recording.json, kpageflags.start.gz, kpageflags.end.gz, trace.txt.gz and
zero-pages.bitmap.gz; docs/recordings.md says how to make one of your own guest.
A trace with lost events cannot be replayed faithfully and is refused, as are lines that are not
trace lines; the options accept them, and the recording says so.
`;

export const INSPECT_GUIDE = `
Examples:
  $ ballast inspect idle-1g
  $ ballast inspect my-guest.ballast --json
`;

/** The longer half of `--help`: examples, what the figures mean, exit statuses. */

const EXIT_STATUSES = `
Exit status:
  0  done, every expectation holds
  1  a step or an expectation failed, a page was lost or broken and no expectation asked for it, or an
     audit found a problem
  2  bad input: one line on stderr says where and what was expected
  3  a process died or the channel between them broke`;

const FIGURES = `
What the figures mean (docs/result-format.md defines each):
  normal, duplicate   pages sent with content, pages sent as "all zero", as query-migrate counts
  skipped, re-sent    pages that a hint kept out of the stream; skipped, then dirtied and sent after all
  oracle              saved bytes, as a share of what the strategy oracle saves (needs both and none)
  limit               saved bytes, as a share of what a clairvoyant could save: at most 1 (needs none)
  recall              share of the free pages that the first round hinted
  precise, at use     share of hinted pages that were free when recorded, and when the host used the hint
  useful              share of the distinct hinted pages that were never sent; zero pages are sent, too
  late                arrived after its round had ended
  wasted              pages sent with content in a pass at whose beginning and end they were free
  lost                pages on which somebody relies and that differ at the destination: must be 0
  broken              free pages whose poison or zeroes the next allocation relies on, likewise
  lock max            longest time the zone lock was held to find hints
  held                most pages the strategy took from the guest at once
  measured, error     what QEMU did with the real guest; how far off the prediction is`;

export const GUIDE = `
Start here:
  $ ballast compare idle-1g               a recorded real guest, all strategies, beside what QEMU measured
  $ ballast inspect idle-1g               what is in that recording
  $ ballast run frag8-iterate             a scenario with expectations of its own
  $ ballast compare idle-1g --set mm.init_on_alloc=false
  $ ballast explore                       schedules of a small machine: does one break anything?

Strategies: none; iterate (walk the free lists, a bounded number of nodes per lock hold);
  alloc (what Linux does: allocate 4 MiB blocks and hold them); alloc-ack (the same, and waits for the host); oracle (knows all free pages: a reference).
${EXIT_STATUSES}

"ballast <command> --help" shows examples and explains the figures. Scenarios: docs/scenarios.md.
`;

export const COMPARE_GUIDE = `
Examples:
  $ ballast compare idle-1g
  $ ballast compare churn-1g --strategies none,alloc --json out.json
  $ ballast compare ./my-recording --jobs 1 --seed 7
  $ ballast compare churn-1g --strategies none,alloc --policies default,auto-converge
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

export const EXPLORE_GUIDE = `
A scenario (scenarios/explore/) is a small machine and the threads that meet in it: who inflates, who
compacts, who migrates. Each seed is one schedule of them, random or PCT, with the faults that the
scenario allows. After each step the invariants of the pages are checked, at the end everything is.

Examples:
  $ ballast explore                                    1,000 schedules of scenarios/explore/mixed.yaml
  $ ballast explore mixed --seeds 100000
  $ ballast explore hinting --first-seed 5000 --seeds 5000
  $ ballast explore --plant late-hint-accepted         a planted bug, in the scenario that finds it
  $ ballast explore isolate --set generation=pfn       the other design of movable pages
  $ ballast explore --list-plants

Of a violation it prints the seed, the shortest schedule that it could reduce it to (a line for each
step: what was done, then → where the thread stands) and the command that repeats it. The same scenario,
plant and seed give the same schedule; the lowest violating seed is reported, whatever --jobs says.

Exit status:
  0  no schedule breaks anything
  1  one does
  2  bad input: one line on stderr says what was expected
  3  a process died
`;

export const HOST_GUIDE = `
Example, in two terminals:
  $ ballast host  idle-1g --strategy alloc --listen  unix:/tmp/machine.sock
  $ ballast guest idle-1g --strategy alloc --connect unix:/tmp/machine.sock
Over TCP the host may be another machine; bind to an address that only friends can reach.

A migration between two hosts, with the guest started as above:
  $ ballast host idle-1g --strategy alloc --listen unix:/tmp/b.sock --incoming   tcp:127.0.0.1:4444
  $ ballast host idle-1g --strategy alloc --listen unix:/tmp/a.sock --migrate-to tcp:127.0.0.1:4444
The source ends with its migrate step; the destination says what arrived and goes on with the steps
behind it.
${EXIT_STATUSES}
`;

export const GUEST_GUIDE = `
Example:
  $ ballast guest idle-1g --strategy alloc --connect unix:/tmp/machine.sock

Give it the same scenario, strategy, seed and --set as the host: processes with different settings of
the machine refuse each other, and each names the keys in which they differ.
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

export const PEERS_GUIDE = `
Debian packages, through apt with a state of its own: the system's sources and keys are used, nothing
of the system is changed, and root is not needed. Versions and SHA-256 sums are locked; what the archive
no longer has is replaced by its newest version, which is said, and verified by the archive's signature.
The unpacked parts stay in $XDG_CACHE_HOME/ballast/peers (default: ~/.cache), about 180 MB.

Exit status:
  0  everything is there
  2  something cannot be had: one line on stderr says what
`;

/**
 * docs/devices.md, made from the tables of profiles and quirks. `npx vitest run
 * test/unit/host/balloon -u` writes it anew after they have changed.
 */
import {
  BALLOON_QUEUES,
  DEVICE_PROFILES,
  DEVICE_QUIRKS,
  type DeviceProfileName,
} from '../../protocol/index.ts';
import { deviceOptionsOf, PROFILES } from './profiles.ts';
import { QUIRKS } from './quirks.ts';

const INTRODUCTION = `# Devices

Generated from \`host/balloon/profiles.ts\` and \`host/balloon/quirks.ts\`; a test keeps them equal.

A scenario says whose balloon device the guest has: \`device: firecracker-1.16\`, or a map with the key \`profile\` and
what is to be different from it. A profile is the device as its monitor sets it up for a guest that is ballooned,
reported and hinted: what is an option there is on. Without a profile the device is \`ballast\`, which offers what is
asked for by name. A quirk is a switch of its own: \`quirks: { done-at-guest-stop: false }\` takes one away, \`true\` adds it.

What a profile does not imitate: the transport of the real device, its threads (QEMU polls the queue of hints while a
round is open), snapshots, and crosvm's working set reporting (bit 8), whose queues no other driver can meet.
`;

/** The whole document. */
export function devicesMarkdown(): string {
  const rows = DEVICE_PROFILES.map(profileRow);
  const profiles = [
    '## Profiles',
    '',
    '| profile | offers | queue sizes | numbering | config | command ids | hints | read in |',
    '|---|---|---|---|---|---|---|---|',
    ...rows,
    '',
  ];
  const quirks = DEVICE_QUIRKS.map((name) => {
    const whose = DEVICE_PROFILES.filter((profile) => PROFILES[profile].quirks.includes(name));
    const { what, source } = QUIRKS[name];
    return `| \`${name}\` | ${whose.join(', ')} | ${what} | ${source} |`;
  });
  const quirkTable = [
    '## Quirks',
    '',
    '| quirk | of | what it does | source |',
    '|---|---|---|---|',
  ];
  return [INTRODUCTION, ...profiles, ...quirkTable, ...quirks, ''].join('\n');
}

function profileRow(name: DeviceProfileName): string {
  const options = deviceOptionsOf({ profile: name });
  const sizes = BALLOON_QUEUES.map(({ name: queue }) => options.queueSizes[queue]).join(', ');
  const cells = [
    `\`${name}\``,
    PROFILES[name].features.map(snakeCase).join(', '),
    sizes,
    options.numbering,
    options.configBytes === null ? 'as offered: 8, 12 or 16 bytes' : `${options.configBytes} bytes`,
    options.hintIds,
    options.discardHints ? 'discarded at once' : 'passed on',
    PROFILES[name].source,
  ];
  return `| ${cells.join(' | ')} |`;
}

/** As scenarios name it. */
function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
